"""The pump's loop between descriptors: what it moves, counts and drops, what it waits for, and what ends it."""

import io
import os
import socket
import sys
import threading
from array import array
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import come_true
from tests.support.frames import EACH_KIND, TCP4, TCP6, UDP4, Kind, frame, frames, partial, record, superpacket
from threepipe.core import fast
from threepipe.core.coalesce import coalesce
from threepipe.core.descriptor import send
from threepipe.core.pump import End
from threepipe.core.pump import pump as python_pump
from threepipe.core.superpacket import split
from threepipe.net.doorbell import Doorbell

if sys.platform == "win32":
    pytest.skip("Windows has no descriptors that this loop could wait for", allow_module_level=True)

SECONDS = 10.0
EINVAL, EIO, EPIPE = 22, 5, 32


class Bench:
    """Two ends, behind each of which the test sits with a socket of datagrams, as the kernel sits behind a TUN."""

    def __init__(self, stack: ExitStack, headed: bool = True, coalescing: bool = True) -> None:
        self.headed = headed
        self.bell = Doorbell()
        stack.callback(self.bell.close)
        self.sockets: list[socket.socket] = []
        self.ends: list[End] = []
        for _ in range(2):
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            near.settimeout(SECONDS)
            file = stack.enter_context(io.FileIO(far.detach(), "r+"))
            os.set_blocking(file.fileno(), False)
            self.sockets.append(stack.enter_context(near))
            self.ends.append(End([file], file, array("Q", bytes(24)), array("Q", bytes(32)), coalescing))
        self.result: tuple[int, End | None] | None = None
        self._thread = threading.Thread(target=self._run)
        stack.callback(self.stop)

    def replace_target(self, stack: ExitStack, path: str) -> None:
        """Let what goes to the right be written to a file that refuses it."""
        self.ends[1].target = stack.enter_context(io.FileIO(path, "r+"))

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        self.result = fast.pump(self.ends[0], self.ends[1], [self.bell], self.headed, True)

    def stop(self) -> tuple[int, End | None] | None:
        self.bell.ring()
        return self.join()

    def join(self) -> tuple[int, End | None] | None:
        if self._thread.ident is not None:
            self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return self.result

    def put(self, *records: bytes | memoryview) -> None:
        for data in records:
            self.sockets[0].send(data)

    def take(self) -> bytes:
        return self.sockets[1].recv(70_000)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as fresh:
        yield fresh


def plain(packet: bytes) -> bytes:
    return bytes(10) + packet


@pytest.mark.parametrize("headed", [True, False])
def test_packets_go_both_ways_and_are_counted(stack: ExitStack, headed: bool) -> None:
    bench = Bench(stack, headed)
    there = [frame(TCP4, b"there", sequence=number * 1000) for number in range(5)]
    back = frame(TCP6, b"and back")
    records = [plain(packet) if headed else packet for packet in there]
    bench.put(*records)
    bench.sockets[1].send(plain(back) if headed else back)
    bench.start()
    assert [bench.take() for _ in there] == records
    assert bench.sockets[0].recv(70_000) == (plain(back) if headed else back)
    assert bench.stop() == (0, None)
    left, right = bench.ends
    size = sum(map(len, there))
    assert list(left.received) == list(right.sent)[:3] == [5, size, 1]
    assert list(right.received) == list(left.sent)[:3] == [1, len(back), 1]
    assert right.sent[3] == left.sent[3] == 0


@EACH_KIND
def test_a_bundle_is_coalesced_as_the_reference_does(stack: ExitStack, kind: Kind) -> None:
    bench = Bench(stack)
    records = [partial(kind, packet) for packet in frames(kind, [b"12345678"] * 20)]
    expected = [bytes(whole) for whole in coalesce([memoryview(bytearray(one)) for one in records], True, True)]
    assert len(expected) == 1
    bench.put(*records)
    bench.start()
    assert [bench.take() for _ in expected] == expected
    bench.stop()
    assert bench.ends[0].received[0] == bench.ends[1].sent[0] == 20


@EACH_KIND
def test_an_end_without_superpackets_gets_packets(stack: ExitStack, kind: Kind) -> None:
    bench = Bench(stack, coalescing=False)
    whole = superpacket(kind, frame(kind, b"0123456789"), 4)
    expected = [plain(bytes(packet)) for packet in split([memoryview(bytearray(whole))])]
    bench.put(whole)
    bench.start()
    assert [bench.take() for _ in expected] == expected
    bench.stop()
    assert bench.ends[1].sent[0] == 3


def test_what_is_no_packet_is_dropped_and_counted(stack: ExitStack) -> None:
    bench = Bench(stack)
    first, last = frames(TCP4, [b"abcd"] * 2)
    bench.put(plain(first), plain(b"\0" * 40), plain(b"\x45"), plain(last))
    bench.start()
    assert [bench.take(), bench.take()] == [plain(first), plain(last)]
    bench.stop()
    assert bench.ends[0].received[0] == 4
    assert list(bench.ends[1].sent) == [2, len(first) + len(last), 1, 2]


@pytest.mark.parametrize("headed", [True, False])
def test_packets_wait_for_room_and_the_other_way_goes_on(stack: ExitStack, headed: bool) -> None:
    bench = Bench(stack, headed)
    bench.start()
    packets = [frame(UDP4, bytes([number % 256]) * 1000, tos=number % 256) for number in range(2000)]
    records = [plain(packet) if headed else packet for packet in packets]
    feeding = threading.Thread(target=bench.put, args=records)
    feeding.start()
    stack.callback(feeding.join, SECONDS)
    sent = bench.ends[1].sent
    # Nobody takes them: what was written stops growing while packets wait, and the other direction works.
    assert come_true(lambda: sent[0] > 0)
    for number in range(50):
        back = records[number]
        bench.sockets[1].send(back)
        assert bench.sockets[0].recv(70_000) == back
    assert sent[0] < len(packets)
    assert [bench.take() for _ in records] == records
    feeding.join(SECONDS)
    bench.stop()
    assert (bench.ends[0].received[0], sent[0], sent[3]) == (2000, 2000, 0)


def test_a_bell_ends_the_wait_for_room(stack: ExitStack) -> None:
    bench = Bench(stack)
    bench.start()
    packet = plain(frame(UDP4, b"x" * 1000))
    bench.sockets[0].setblocking(False)

    def stuck() -> bool:
        """Whether not even the near end has room any more."""
        try:
            bench.put(packet)
        except BlockingIOError:
            return True
        return False

    assert come_true(stuck)
    assert come_true(lambda: bench.ends[0].received[0] > bench.ends[1].sent[0] > 0)
    assert bench.stop() == (0, None)
    left, right = bench.ends
    assert right.sent[3] > 0
    assert left.received[0] == right.sent[0] + right.sent[3]


def test_superpackets_that_are_refused_are_split_and_there_are_none_from_then_on(stack: ExitStack) -> None:
    bench = Bench(stack)
    bench.replace_target(stack, "/proc/self/oom_score_adj")  # Takes no text that is no number: EINVAL.
    bench.put(*[partial(TCP4, packet) for packet in frames(TCP4, [b"12345678"] * 5)])
    bench.start()
    dropped = bench.ends[1].sent
    assert come_true(lambda: dropped[3] == 5)
    assert bench.stop() == (0, None)
    assert [end.coalescing for end in bench.ends] == [True, False]
    assert list(dropped) == [0, 0, 0, 5]


def test_only_the_refused_superpacket_is_split(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Python, where a refusal can be staged: one in the midst of a bundle."""
    bench = Bench(stack)
    monkeypatch.setattr(fast, "pump", python_pump)

    def refuse(file: io.FileIO, records: list[memoryview]) -> tuple[int, int]:
        whole = [index for index, one in enumerate(records) if one[1]]
        return send(file, records) if not whole else (send(file, records[: whole[0]])[0], EINVAL)

    monkeypatch.setattr("threepipe.core.pump.send", refuse)
    alone = frame(TCP6, b"alone")
    train = frames(TCP4, [b"abcd"] * 3)
    bench.put(plain(alone), *map(plain, train))
    bench.start()
    assert [bench.take() for _ in range(4)] == [plain(alone), *map(plain, train)]
    bench.stop()
    assert bench.ends[1].sent[0] == 4
    assert not bench.ends[1].coalescing


def test_while_the_link_is_down_packets_are_dropped(stack: ExitStack) -> None:
    bench = Bench(stack)
    bench.replace_target(stack, "/proc/self/mem")  # Nothing is mapped at its start: EIO.
    bench.start()
    dropped = bench.ends[1].sent
    for number in range(1, 4):
        bench.put(plain(frame(TCP4)))
        assert come_true(lambda number=number: dropped[3] == number)  # type: ignore[misc]
    assert bench.stop() == (0, None)


def test_an_end_that_breaks_ends_it(stack: ExitStack) -> None:
    bench = Bench(stack)
    bench.ends[1].sources = []  # Else its end of file would be noticed first.
    bench.sockets[1].close()
    bench.put(plain(frame(TCP4)), plain(frame(TCP6)))
    bench.start()
    assert bench.join() == (EPIPE, bench.ends[1])
    assert list(bench.ends[1].sent) == [0, 0, 0, 2]


def test_a_source_that_breaks_ends_it(stack: ExitStack) -> None:
    bench = Bench(stack)
    listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    listening.bind("")
    listening.listen()
    source = stack.enter_context(io.FileIO(os.dup(listening.fileno()), "r+"))
    os.set_blocking(source.fileno(), False)
    bench.ends[0].sources = [source]  # It becomes ready by a caller, and can be read never.
    caller = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    caller.connect(listening.getsockname())
    bench.start()
    assert bench.join() == (EINVAL, bench.ends[0])


def test_records_longer_than_any_packet(stack: ExitStack) -> None:
    bench = Bench(stack, headed=False)
    bench.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    bench.put(b"\x45" * 65_536, b"\x45" * 40)
    bench.start()
    assert bench.take() == b"\x45" * 40
    bench.stop()
    assert bench.ends[1].sent[3] == bench.ends[1].sent[0] == 1


def test_a_contradiction_is_no_packet(stack: ExitStack) -> None:
    bench = Bench(stack)
    bench.put(record(frame(TCP4), gso_type=1), plain(frame(TCP4)))
    bench.start()
    assert bench.take() == plain(frame(TCP4))
    bench.stop()
    assert bench.ends[1].sent[0] == 1


def test_a_source_that_is_ready_and_has_nothing(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when somebody else was faster. In Python, where that can be staged."""
    monkeypatch.setattr(fast, "pump", python_pump)
    bench = Bench(stack)

    class Shy(io.FileIO):
        asked = 0

        def readinto(self, buffer: object) -> int | None:
            self.asked += 1
            return None if self.asked == 1 else super().readinto(buffer)  # type: ignore[arg-type]

    source = stack.enter_context(Shy(os.dup(bench.ends[0].target.fileno()), "r+"))
    bench.ends[0].sources = [source]
    bench.put(plain(frame(TCP4)))
    bench.start()
    assert bench.take() == plain(frame(TCP4))
    bench.stop()
    assert source.asked > 1


def test_several_sources_of_one_end(stack: ExitStack) -> None:
    bench, other = Bench(stack, headed=False), Bench(stack)
    bench.ends[0].sources = [bench.ends[0].target, other.ends[0].target]
    packets = [frame(UDP4, bytes([number]) * 1000) for number in range(200)]
    bench.start()
    feeding = [threading.Thread(target=one.put, args=packets) for one in (bench, other)]
    for thread in feeding:
        thread.start()
        stack.callback(thread.join, SECONDS)
    # Both are ready while there is no room, and none is asked before there is.
    assert come_true(lambda: bench.ends[0].received[0] > bench.ends[1].sent[0] > 0)
    taken = [bench.take() for _ in range(400)]
    assert sorted(taken) == sorted(packets * 2)
    bench.stop()
    assert bench.ends[1].sent[3] == 0


def test_two_sources_are_ready_and_there_is_no_room(stack: ExitStack) -> None:
    bench, other = Bench(stack, headed=False), Bench(stack, headed=False)
    bench.ends[0].sources = [bench.ends[0].target, other.ends[0].target]
    filler, packet = bytes(20), frame(UDP4, bytes(1000))
    before = 0
    while bench.ends[1].target.write(filler) is not None:
        before += 1
    bench.put(packet)
    other.put(packet)
    bench.start()
    assert come_true(lambda: bench.ends[0].received[0] == 1)
    assert [bench.take() for _ in range(before)] == [filler] * before
    assert [bench.take(), bench.take()] == [packet, packet]
    bench.stop()
    assert list(bench.ends[1].sent)[::3] == [2, 0]
