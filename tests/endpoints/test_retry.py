"""Endpoints that connect again: with `retry` and `forever`, and how they end without."""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest

import threepipe
from tests.support.commands import python
from tests.support.endpoints import SECONDS, Place, here, opened, packet, posix, received, record
from threepipe.assembly import Plan, assemble
from threepipe.endpoints.address import parse_address
from threepipe.endpoints.connection import Connection
from threepipe.endpoints.dialer import Dialer, Retry
from threepipe.endpoints.request import RateLimitedLog
from threepipe.endpoints.stream import Stream

SOON = ",interval=0.01"


def answers(stack: ExitStack, place: Place, caller: threepipe.Session, number: int) -> None:
    """Listen at `place`, and check that a packet passes each way once the caller has come."""
    with ExitStack() as listening:
        listener = opened(listening, place.listening)
        sent = False
        while not sent:
            listener.receive(0.01)
            caller.receive(0.01)
            try:
                sent = caller.send([packet(number)]) == 1
            except threepipe.LinkDown:
                pass
        assert received(listener, 1) == [packet(number)]
        assert listener.send([packet(number + 1)]) == 1
        assert received(caller, 1) == [packet(number + 1)]


def test_a_caller_connects_again_and_again(stack: ExitStack, place: Place) -> None:
    """The first time, there is no listener yet."""
    caller = opened(stack, f"{place.calling},forever{SOON}")
    with pytest.raises(threepipe.LinkDown, match="nothing is connected"):
        caller.send([packet(0)])
    for number in range(0, 6, 2):
        answers(stack, place, caller, number)
    assert not caller.receive(0)
    assert caller.statistics.sent_packets == 3


def test_a_caller_whose_first_connection_holds_needs_no_thread(stack: ExitStack, tmp_path: Path) -> None:
    place = Place("tcp", tmp_path)
    listener = opened(stack, place.listening)
    with threepipe.open_endpoint(f"{place.calling},forever") as caller:
        assert caller.send([packet(1)]) == 1
        assert received(listener, 1) == [packet(1)]
        assert not [thread for thread in threading.enumerate() if thread.name == "threepipe-dialer"]


def test_a_program_is_started_again(stack: ExitStack) -> None:
    code = f"import sys; sys.stdout.buffer.write({record(packet(1))!r}); sys.exit(7)"
    session = opened(stack, f"exec,forever{SOON}:{python(code)}")
    assert received(session, 3) == [packet(1)] * 3


def test_a_program_that_sends_no_packet_is_started_so_many_times_more(
    stack: ExitStack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = f"open({str(tmp_path / 'starts')!r}, 'a').write('.'); raise SystemExit(7)"
    session = opened(stack, f"exec,retry=3{SOON}:{python(code)}")
    for _ in range(2):  # Each further call raises it again.
        with pytest.raises(threepipe.EndpointError, match="ended with status 7; gave up after 3 more attempts"):
            session.receive(SECONDS)
    assert (tmp_path / "starts").read_text() == "...."
    assert "the command ended with status 7; connecting again in 0.0 s" in caplog.text


def test_attempts_are_counted_anew_after_a_packet(stack: ExitStack, tmp_path: Path) -> None:
    """Of each two starts one sends a packet, and two failures in a row would be the end."""
    code = (
        f"file = open({str(tmp_path / 'starts')!r}, 'a'); file.write('.'); import sys;"
        f" file.tell() % 2 and sys.stdout.buffer.write({record(packet(1))!r})"
    )
    session = opened(stack, f"exec,retry=2{SOON}:{python(code)}")
    assert received(session, 4) == [packet(1)] * 4


def test_a_caller_that_gives_up_raises_the_last_error(stack: ExitStack, place: Place) -> None:
    caller = opened(stack, f"{place.calling},retry=2{SOON}")
    with pytest.raises(threepipe.EndpointError, match="start the listener there first; gave up after 2 more attempts"):
        caller.receive(SECONDS)


def test_another_exception_than_an_endpoint_error_is_not_hidden(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(stack, f"exec,forever{SOON}:{python('')}")
    monkeypatch.setattr("threepipe.endpoints.openers.start_program", lambda words: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        session.receive(SECONDS)


def test_a_pipe_goes_on_while_one_end_connects_again(stack: ExitStack, tmp_path: Path) -> None:
    place = Place("tcp", tmp_path)
    near, far = threepipe.MemoryAdapter.pair()
    with near, far, near.start_session() as program:
        caller = opened(stack, f"{place.calling},forever{SOON}")
        with ThreadPoolExecutor(1) as executor:
            ended = executor.submit(threepipe.pipe, caller, far.start_session())
            for number in range(2):
                with ExitStack() as listening:
                    listener = opened(listening, place.listening)
                    while not (bundle := listener.receive(0.01)):
                        program.send([packet(number)])  # Those without a connection are dropped.
                    assert bytes(bundle[0]) in (packet(number), packet(0))
            caller.close()
            ended.result(SECONDS)
        assert caller.statistics.received_packets == 0


def test_close_ends_a_pause_and_a_thread(stack: ExitStack) -> None:
    session = opened(stack, f"tcp:{here()},forever,interval=1000")
    session.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "threepipe-dialer"]


def test_close_closes_a_connection_that_was_not_used_yet(stack: ExitStack, tmp_path: Path) -> None:
    place = Place("tcp", tmp_path)
    session = opened(stack, f"{place.calling},forever{SOON}")
    host, _, port = place.calling.removeprefix("tcp:").partition(":")
    with socket.create_server((host, int(port))) as listening:
        listening.settimeout(SECONDS)
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(SECONDS)
            session.close()
            assert accepted.recv(1) == b""


class Held:
    """A stream of which only the end is used; `failure` waits until it is released."""

    def __init__(self) -> None:
        self.reached, self.released, self.closed = threading.Event(), threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.released.wait(SECONDS)

    def failure(self) -> str:
        self.wait()
        return "ended"

    def close(self) -> None:
        self.closed.set()

    def connection(self) -> Connection:
        return Connection(cast(Stream, self), "it")


def dialer_to(dial: Callable[[], Connection]) -> Dialer:
    return Dialer(dial, Retry(None, 0.001), RateLimitedLog("test"))


def finish(dialer: Dialer, held: Held) -> None:
    """Close the dialer while its thread is held, and wait for the thread."""
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "threepipe-dialer"]
    assert held.reached.wait(SECONDS)
    dialer.close()
    held.released.set()
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_a_connection_that_ends_slowly_is_not_made_again_after_close(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    dialer = dialer_to(pytest.fail)
    dialer.retire(held.connection(), "")
    finish(dialer, held)
    assert held.closed.is_set()
    assert "connecting again" not in caplog.text


def test_a_connection_that_is_made_after_close_is_closed() -> None:
    held = Held()

    def dial() -> Connection:
        held.wait()
        return held.connection()

    dialer = dialer_to(dial)
    dialer.retire(Held().connection(), "ended")
    finish(dialer, held)
    assert held.closed.is_set()


def test_an_attempt_that_fails_after_close_does_nothing() -> None:
    held = Held()

    def dial() -> Connection:
        held.wait()
        raise ZeroDivisionError

    dialer = dialer_to(dial)
    dialer.retire(Held().connection(), "ended")
    finish(dialer, held)


def test_pauses_double_up_to_a_minute_or_a_longer_interval() -> None:
    pauses = [Retry(None).pause(failures) for failures in range(8)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert Retry(None, 300).pause(10_000) == 300


# The end of a connection that is not made again.


def ended(left: str) -> None:
    """Run a pipe until `left` ends."""
    with assemble(Plan(parse_address(left, "left"), parse_address("discard", "right"))) as assembly:
        assembly.run()


def test_a_connection_that_its_other_end_closes_fails_the_pipe(stack: ExitStack, place: Place) -> None:
    listener = opened(stack, place.listening)
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(ended, place.calling)
        while not running.done() and not _sent(listener):
            listener.receive(0.01)
        listener.close()
        with pytest.raises(threepipe.EndpointError, match="disconnected; to have it connect again, add ,forever"):
            running.result(SECONDS)


def _sent(listener: threepipe.Session) -> bool:
    try:
        return listener.send([packet(1)]) == 1
    except threepipe.LinkDown:
        return False


def test_a_program_that_succeeds_ends_the_pipe_in_order() -> None:
    ended(f"exec:{python('')}")


@posix
def test_a_program_that_is_killed_fails_the_pipe() -> None:
    with pytest.raises(threepipe.EndpointError, match="the command was ended by signal 9"):
        ended(f"exec:{python('import os; os.kill(os.getpid(), 9)')}")


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("tcp:h:1,retry=0", "expected 1 or more; write retry=NUMBER"),
        ("unix:a,retry", "is written retry=NUMBER"),
        ("tcp:h:1,retry=3,forever", "drop one of the two"),
        ("exec,interval=2:true", "interval is the pause of retry or forever"),
        ("exec,interval=-1,forever:true", "write interval=SECONDS"),
        ("exec,netns=a:true", "unknown option 'netns' of exec"),
    ],
)
def test_options_that_do_not_go_together_raise(address: str, advice: str) -> None:
    with pytest.raises(threepipe.InvalidSetting, match=advice):
        parse_address(address)


def test_a_command_keeps_its_commas_and_colons() -> None:
    for address in ("exec:a,forever:b,c", "exec,forever:a,forever:b,c"):
        assert parse_address(address).parameter == ["a,forever:b,c"]
    assert parse_address("exec,forever:a").options == {"forever": True}
