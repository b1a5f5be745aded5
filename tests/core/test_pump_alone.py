"""Packets that come alone: Python's forwarding loop takes the short ways of ports for them, and loses none behind."""

import errno
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.support.endpoints import packet, posix
from tests.support.ports import PortInMemory
from tests.support.waiting import come_true
from threepipe.bundle import Bundle
from threepipe.echo import echo_reply, echo_request
from threepipe.endpoints import open_endpoint
from threepipe.errors import AdapterError, AdapterGone, LinkDown
from threepipe.pump import interrupt, pump
from threepipe.session import Session

SECONDS = 10.0


class ScriptedPort(PortInMemory):
    """A port in memory that tells by which ways packets came and left, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.writable.ring()
        self.ways: list[str] = []
        self.sent: list[bytes] = []
        self.failure: Exception | None = None
        self.full = False
        self._lock = threading.Lock()
        self._reads: deque[list[bytes]] = deque()

    def put(self, *reads: Sequence[bytes]) -> None:
        """Have packets ready at once; each read gives the packets of one argument."""
        with self._lock:
            self._reads.extend(map(list, reads))
            self.readable.ring()

    def _taken(self, most: int) -> list[bytes]:
        with self._lock:
            packets = [each for _ in range(min(most, len(self._reads))) for each in self._reads.popleft()]
            if not self._reads:
                self.readable.clear()
            return packets

    def receive(self) -> Bundle:
        packets = self._taken(100)
        self.ways += ["bundle"] * bool(packets)
        return Bundle(packets)

    def receive_packets(self) -> list[bytes]:
        return self.receive().copies()

    def receive_once(self) -> list[bytes]:
        self.ways.append("once")
        return self._taken(1)

    def send(self, bundle: Bundle) -> Bundle:
        return bundle if self.full else Bundle(list(bundle)[self._accept(bundle.copies()) :])

    def send_packet(self, packet: bytes) -> bool:
        return not self.full and self._accept([packet]) == 1

    def _accept(self, packets: Sequence[bytes]) -> int:
        if self.failure is not None:
            raise self.failure
        self.sent += packets
        return len(packets)

    def make_full(self) -> None:
        self.full = True
        self.writable.clear()

    def make_room(self) -> None:
        self.full = False
        self.writable.ring()


class Alone:
    """Two ports with a loop between their sessions."""

    def __init__(self, loop: ThreadPoolExecutor) -> None:
        self.left, self.right = ScriptedPort(), ScriptedPort()
        self.sessions = Session(self.left), Session(self.right)
        self.loop: Future[bool] = loop.submit(pump, *self.sessions)

    def pass_one(self, number: int, source: ScriptedPort, target: ScriptedPort) -> None:
        source.put([packet(number)])
        assert come_true(lambda: target.sent[-1:] == [packet(number)])

    def calm_down(self) -> None:
        """Have packets pass alone, in turns, as a question and its answer do."""
        for number in range(10):
            self.pass_one(number, self.left, self.right)
            self.pass_one(number, self.right, self.left)

    def stop(self) -> None:
        interrupt(self.sessions[0])
        self.loop.result(SECONDS)

    def __enter__(self) -> "Alone":
        return self

    def __exit__(self, *_: object) -> None:
        for session in self.sessions:
            session.close()


@pytest.fixture
def alone() -> Iterator[Alone]:
    with ThreadPoolExecutor(1) as executor, Alone(executor) as made:
        yield made


def test_packets_that_come_alone_take_the_short_way_and_are_counted(alone: Alone) -> None:
    alone.calm_down()
    alone.calm_down()
    alone.stop()
    assert alone.left.ways[10:] == alone.right.ways[10:] == ["once"] * 10
    for session in alone.sessions:
        assert session.statistics == (20, 2000, 20, 20, 2000, 20, 0)


def test_a_burst_after_packets_that_came_alone_moves_in_one_bundle_and_in_order(alone: Alone) -> None:
    alone.calm_down()
    packets = [packet(number) for number in range(20, 40)]
    alone.left.put(*[[each] for each in packets])
    assert come_true(lambda: alone.right.sent[10:] == packets)
    alone.stop()
    assert alone.left.ways[-2:] == ["once", "bundle"]
    assert alone.sessions[1].statistics.sent_bundles == 10 + 2


def test_packets_that_one_read_gives_stay_in_order_and_make_a_bundle(alone: Alone) -> None:
    alone.calm_down()
    packets = [packet(number) for number in range(20, 24)]
    alone.left.put(packets)
    assert come_true(lambda: alone.right.sent[10:] == packets)
    alone.stop()
    assert alone.sessions[0].statistics[:3] == (14, 1400, 11)
    assert alone.sessions[1].statistics[3:] == (14, 1400, 11, 0)


def test_a_packet_that_comes_alone_waits_for_room_before_later_ones(alone: Alone) -> None:
    alone.calm_down()
    alone.right.make_full()
    alone.left.put([packet(20)])
    assert come_true(lambda: alone.sessions[0].statistics.received_packets == 11)
    alone.left.put([packet(21)])
    alone.pass_one(22, alone.right, alone.left)
    assert alone.right.sent[10:] == []
    alone.right.make_room()
    assert come_true(lambda: alone.right.sent[10:] == [packet(20), packet(21)])
    alone.stop()
    assert alone.sessions[1].statistics[3:] == (12, 1200, 12, 0)


@pytest.mark.parametrize("failure", [LinkDown(errno.EIO, "down"), AdapterError(errno.EINVAL, "refused")])
def test_a_packet_that_comes_alone_and_cannot_be_sent_is_dropped_and_counted(alone: Alone, failure: Exception) -> None:
    alone.calm_down()
    alone.right.failure = failure
    alone.left.put([packet(20)])
    assert come_true(lambda: alone.sessions[1].statistics.sent_dropped == 1)
    alone.right.failure = None
    alone.pass_one(21, alone.left, alone.right)
    alone.stop()
    assert alone.sessions[1].statistics[3:] == (11, 1100, 11, 1)


def test_a_packet_that_comes_alone_and_is_invalid_is_dropped_and_counted(alone: Alone) -> None:
    alone.calm_down()
    alone.left.put([b"\x45"])
    assert come_true(lambda: alone.sessions[1].statistics.sent_dropped == 1)
    alone.pass_one(21, alone.left, alone.right)
    alone.stop()
    assert alone.sessions[1].statistics[3:] == (11, 1100, 11, 1)


def test_an_adapter_that_is_gone_ends_the_loop_with_its_packet_counted(alone: Alone) -> None:
    alone.calm_down()
    alone.right.failure = AdapterGone(errno.EBADF, "gone")
    alone.left.put([packet(20)])
    with pytest.raises(AdapterGone):
        alone.loop.result(SECONDS)
    assert alone.sessions[1].statistics.sent_dropped == 1


def test_packets_that_wait_in_the_session_pass_before_one_that_comes_alone(alone: Alone) -> None:
    alone.calm_down()
    left, _ = alone.sessions
    alone.right.make_full()
    alone.left.put([packet(20)], [packet(21)])
    assert come_true(lambda: left.statistics.received_packets == 11)
    interrupt(left)
    alone.loop.result(SECONDS)
    alone.left.put([packet(22)])
    alone.right.make_room()
    with ThreadPoolExecutor(1) as executor:
        again = executor.submit(pump, *alone.sessions)
        assert come_true(lambda: alone.right.sent[10:] == [packet(20), packet(21), packet(22)])
        interrupt(left)
        again.result(SECONDS)


@posix
def test_answers_of_a_port_without_a_short_way_pass() -> None:
    left = ScriptedPort()
    with ThreadPoolExecutor(1) as executor, Session(left) as session, open_endpoint("echo") as echo:
        assert isinstance(echo, Session)
        loop = executor.submit(pump, session, echo)
        for number in range(20):
            request = echo_request("10.0.0.1", "10.0.0.2", 1, number)
            left.put([request])
            assert come_true(lambda request=request: left.sent[-1:] == [echo_reply(request)])  # type: ignore[misc]
        interrupt(session)
        loop.result(SECONDS)
