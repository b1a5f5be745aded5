"""Sessions over a port that fails on demand."""

import asyncio
import errno
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.support.sessions import SIZE, USES, packets
from threepipe import Bundle, LinkDown, Session
from threepipe.backend import Waitable
from threepipe.net.doorbell import Doorbell
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
