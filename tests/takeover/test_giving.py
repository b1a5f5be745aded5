"""The steps of a takeover at the running process, with a stand-in for what is handed over."""

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from tests.support.sessions import in_thread

if sys.platform != "linux":
    pytest.skip(f"{sys.platform} has no takeover", allow_module_level=True)

from threepipe import platforms
from threepipe.errors import EndpointError
from threepipe.net.doorbell import Doorbell
from threepipe.platforms.linux.handover import Link
from threepipe.takeover import Giving, giving

SECONDS = 20


class Recorded(Giving):
    """Writes down each step."""

    kind = "a test"
    version = 3
    again = "start again"

    def __init__(self, link: Link, bell: Doorbell) -> None:
        super().__init__("thing", link, bell)
        self.steps: list[str] = []

    def offer(self) -> None:
        self._link.send({"takeover": "offer"})

    def suspend(self) -> None:
        self.steps.append("suspend")

    def send_state(self) -> None:
        self._link.send({"takeover": "state"})

    def go_on(self) -> None:
        self.steps.append("go on")

    def forget(self) -> None:
        self.steps.append("forget")

    def recover(self) -> str:
        self.steps.append("recover")
        return "recovers"

    def give_away(self) -> None:
        self.steps.append("give away")


class Process:
    """The new process, and the running one in a thread."""

    def __init__(self) -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link, self._far, self.bell = Link(near), Link(far), Doorbell()
        self.running = Recorded(self._far, self.bell)
        self.done: Future[None] = in_thread(self.running.run)

    def say(self, *steps: str) -> None:
        for step in steps:
            self.link.send({"takeover": step})

    def greet(self, **changes: Any) -> None:
        hello = {"takeover": "hello", "version": 3, "kind": "a test", "scope": platforms.network_scope()}
        self.link.send(hello | changes)

    def hear(self, step: str) -> None:
        assert self.link.receive(SECONDS)[0] == {"takeover": step}

    def come_to_state(self) -> None:
        """Take the steps up to the state, after which it may say `mine`."""
        self.greet()
        self.hear("offer")
        self.say("prepared")
        self.hear("state")

    def close(self) -> None:
        self.link.close()
        self.done.exception(SECONDS)
        self._far.close()
        self.bell.close()


@pytest.fixture
def new() -> Iterator[Process]:
    process = Process()
    yield process
    process.close()


def test_the_process_gives_everything_away_once_the_new_one_runs(new: Process) -> None:
    new.come_to_state()
    new.say("mine", "running")
    new.done.result(SECONDS)
    assert new.running.given
    assert new.running.steps == ["suspend", "forget", "give away"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 4}, "thing has version 3 of the takeover, and the new process 4; start again"),
        ({"kind": "another"}, "thing is run by a test, and the new process is another; use a test"),
        ({"scope": "elsewhere"}, "thing is in another network namespace than the new process; start that one there"),
        ({"takeover": "mine"}, "the new process did not say hello; it is no threepipe"),
    ],
)
def test_a_process_that_does_not_fit_is_refused_before_anything_stops(
    new: Process, changes: dict[str, Any], reason: str
) -> None:
    new.greet(**changes)
    with pytest.raises(EndpointError, match=reason):
        new.done.result(SECONDS)
    assert new.running.steps == []
    assert not new.running.given


@pytest.mark.parametrize("end", ["hangs", "ends", "is not needed"])
def test_the_process_goes_on_if_the_new_one_does_not_say_mine(
    new: Process, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    if end == "hangs":
        monkeypatch.setattr(giving, "SECONDS_TO_BEGIN", 0.01)
    new.come_to_state()
    if end == "ends":
        new.link.close()
    elif end == "is not needed":
        new.bell.ring()
    with pytest.raises(EndpointError):
        new.done.result(SECONDS)
    assert new.running.steps == ["suspend", "go on"]
    assert not new.running.given


def test_the_process_recovers_if_the_new_one_ends_before_it_runs(new: Process) -> None:
    new.come_to_state()
    new.say("mine")
    new.link.close()
    with pytest.raises(EndpointError, match="the new process has ended, so this one recovers"):
        new.done.result(SECONDS)
    assert new.running.steps == ["suspend", "forget", "recover"]
    assert not new.running.given


def test_a_process_that_ends_after_mine_leaves_everything_to_the_new_one(new: Process) -> None:
    new.come_to_state()
    new.say("mine")
    new.bell.ring()
    new.done.result(SECONDS)
    assert new.running.steps[-1] == "give away"
    assert new.running.given
