"""Sessions over a port that fails on demand."""

import asyncio
import errno
import os
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.support.sessions import SIZE, USES, in_thread, packets, until
from threepipe import Bundle, LinkDown, Session
from threepipe.backend import Waitable
from threepipe.core.pump import PAUSE
from threepipe.net.doorbell import Doorbell
from threepipe.pump import interrupt, pump
from threepipe.session import SessionStatistics


class FakePort:
    """A port whose `send` follows a script, call by call: accept that many packets, or raise."""

    def __init__(self, *answers: int | OSError) -> None:
        self.answers = list(answers)
        self.writable = Doorbell()
        self.writable.ring()
        self.readable: Waitable = self.writable
        self.calls: list[str] = []

    def receive(self) -> Bundle:
        return Bundle()

    def send(self, bundle: Bundle) -> Bundle:
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return bundle[answer:]

    def lend(self) -> None:
        return None

    def wake(self) -> None:
        self.calls.append("wake")

    def stop(self) -> None:
        self.calls.append("stop")

    def dispose(self) -> None:
        self.calls.append("dispose")
        self.writable.close()


class Exhausted:
    """A waitable in a process that has no descriptors left."""

    def fileno(self) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    def wait(self, timeout: float | None) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    def notify(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Callable[[], None]:
        raise OSError(errno.EMFILE, "too many open files")

    def hold(self, held: bool) -> None: ...


def test_close_wakes_stops_and_disposes_of_the_port_once() -> None:
    session = Session(port := FakePort())
    session.close()
    session.close()
    assert port.calls == ["wake", "stop", "dispose"]


def test_packets_left_when_the_link_goes_down_are_dropped() -> None:
    with closing(Session(FakePort(2, 0, LinkDown(errno.EIO, "down"), 5))) as session:
        with pytest.raises(LinkDown):
            session.send(packets(5), timeout=None)
        assert (session.statistics.sent_packets, session.statistics.sent_dropped) == (2, 3)
        assert session.send(packets(5)) == 5
    assert session.statistics == SessionStatistics(0, 0, 0, 7, 7 * SIZE, 2, 3)


@pytest.mark.parametrize("use", ["receive", "receive_async", "receive_packet_async"])
def test_a_failed_wait_is_raised_and_the_session_still_closes(use: str) -> None:
    port = FakePort()
    port.readable = Exhausted()
    session = Session(port)
    with pytest.raises(OSError, match="too many open files"):
        USES[use](session)
    session.close()
    assert port.calls == ["wake", "stop", "dispose"]


class Apart(FakePort):
    """A port that is not readable because it is writable."""

    def __init__(self, *answers: int) -> None:
        super().__init__(*answers)
        self.readable = self.unread = Doorbell()

    def dispose(self) -> None:
        super().dispose()
        self.unread.close()


class WithoutMemory(Apart):
    """A port that is writable and has no room the first `times`, as a system without memory for packets."""

    def __init__(self, times: int) -> None:
        super().__init__(*[0] * times, 1)
        self.lasts = PAUSE * (times - 2)
        """The least time in seconds that sending takes."""


SENDING: dict[str, Callable[[Session], object]] = {
    "send": lambda session: session.send(packets(1), timeout=None),
    "send_async": lambda session: asyncio.run(session.send_async(packets(1))),
}


@pytest.mark.parametrize("sending", SENDING)
def test_sending_to_a_writable_port_without_room_pauses_between_attempts(sending: str) -> None:
    port = WithoutMemory(50)
    with closing(Session(port)) as session:
        before = time.monotonic()
        SENDING[sending](session)
        assert time.monotonic() - before >= port.lasts
        assert session.statistics.sent_packets == 1


class Source(Apart):
    """A port that has one packet, and is readable until it was received."""

    def __init__(self) -> None:
        super().__init__()
        self.unread.ring()
        self.bundles = [Bundle(packets(1))]

    def receive(self) -> Bundle:
        self.unread.clear()
        return self.bundles.pop() if self.bundles else Bundle()


@pytest.mark.skipif(os.name == "nt", reason="this system has no descriptors to wait for")
def test_a_pump_to_a_writable_port_without_room_pauses_between_attempts() -> None:
    port = WithoutMemory(50)
    with closing(Session(Source())) as source, closing(Session(port)) as target:
        before = time.monotonic()
        pumping = in_thread(pump, source, target)
        until(lambda: target.statistics.sent_packets == 1)
        assert time.monotonic() - before >= port.lasts
        interrupt(target)
        assert pumping.result(10)
