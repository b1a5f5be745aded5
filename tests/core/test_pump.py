"""The forwarding loop, native or Python's: its packets, counts and drops, its waiting, and its end."""

import errno
import io
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest

if sys.platform != "linux":
    pytest.skip("only Linux' ports have descriptors to lend", allow_module_level=True)

from tests.support.coalescing import plain
from tests.support.frames import EACH_KIND, TCP4, TCP6, UDP4, Kind, frame, frames, partial, record, superpacket
from tests.support.pump_bench import SECONDS, Bench, NativeBench, Refusing, fill, native
from tests.support.waiting import come_true
from threepipe.core import fast
from threepipe.core.coalesce import coalesce
from threepipe.core.ends import DROPPED
from threepipe.core.superpacket import split
from threepipe.errors import AdapterError


@pytest.mark.parametrize("vnet_header", [True, False])
def test_packets_go_both_ways_and_are_counted(stack: ExitStack, vnet_header: bool) -> None:
    bench = Bench(stack, vnet_header)
    there = [frame(TCP4, b"there", sequence=number * 1000) for number in range(5)]
    back = frame(TCP6, b"and back")
    records = [plain(packet) if vnet_header else packet for packet in there]
    bench.put(*records)
    bench.sockets[1].send(plain(back) if vnet_header else back)
    bench.start()
    assert [bench.take() for _ in there] == records
    assert bench.sockets[0].recv(70_000) == (plain(back) if vnet_header else back)
    bench.stop()
    assert bench.failure is None
    left, right = [session.statistics for session in bench.sessions]
    size = sum(map(len, there))
    assert left[:3] == right[3:6] == (5, size, 1)
    assert right[:3] == left[3:6] == (1, len(back), 1)
    assert right.sent_dropped == left.sent_dropped == 0


@EACH_KIND
def test_a_bundle_is_coalesced_as_by_the_reference(stack: ExitStack, kind: Kind) -> None:
    bench = Bench(stack)
    records = [partial(kind, packet) for packet in frames(kind, [b"12345678"] * 20)]
    expected = [bytes(whole) for whole in coalesce([memoryview(bytearray(one)) for one in records], True, True)]
    assert len(expected) == 1
    bench.put(*records)
    bench.start()
    assert [bench.take() for _ in expected] == expected
    bench.stop()
    assert bench.received == bench.sent == 20


@EACH_KIND
def test_a_target_without_superpackets_gets_single_packets(stack: ExitStack, kind: Kind) -> None:
    bench = Bench(stack, superpackets=False)
    whole = superpacket(kind, frame(kind, b"0123456789"), 4)
    expected = [plain(bytes(packet)) for packet in split([memoryview(bytearray(whole))])]
    bench.put(whole)
    bench.start()
    assert [bench.take() for _ in expected] == expected
    bench.stop()
    assert bench.sent == 3


def test_invalid_packets_are_dropped_and_the_others_pass(stack: ExitStack) -> None:
    bench = Bench(stack)
    first, last = frames(TCP4, [b"abcd"] * 2)
    bench.put(plain(first), plain(b"\0" * 40), plain(b"\x45"), plain(last))
    bench.start()
    assert bench.take_packets(2) == [first, last]
    bench.stop()
    assert bench.received == 4
    assert bench.sessions[1].statistics[3:] == (2, len(first) + len(last), 1, 2)


@pytest.mark.parametrize("vnet_header", [True, False])
def test_packets_wait_for_room_while_the_opposite_direction_goes_on(stack: ExitStack, vnet_header: bool) -> None:
    bench = Bench(stack, vnet_header)
    bench.start()
    packets = [frame(UDP4, bytes([number % 256]) * 1000, tos=number % 256) for number in range(2000)]
    records = [plain(packet) if vnet_header else packet for packet in packets]
    feeding = threading.Thread(target=bench.put, args=records)
    feeding.start()
    stack.callback(feeding.join, SECONDS)
    # The test reads none: the count of written packets stops growing, and the other direction still works.
    assert come_true(lambda: bench.sent > 0)
    for number in range(50):
        back = records[number]
        bench.sockets[1].send(back)
        assert bench.sockets[0].recv(70_000) == back
    assert bench.sent < len(packets)
    assert [bench.take() for _ in records] == records
    feeding.join(SECONDS)
    bench.stop()
    assert (bench.received, bench.sent, bench.dropped) == (2000, 2000, 0)


@native
def test_a_refused_superpacket_is_split_and_no_more_are_sent(stack: ExitStack) -> None:
    ready = [bytes(partial(TCP4, packet)) for packet in frames(TCP4, [b"12345678"] * 5)]
    # This file refuses text that is not a number: EINVAL.
    bench = NativeBench(stack, "/proc/self/oom_score_adj", ready=ready)
    assert come_true(lambda: bench.right.sent[DROPPED] == 5)
    assert bench.stop() == (0, None)
    assert (bench.left.coalescing, bench.right.coalescing) == (True, False)
    assert list(bench.right.sent) == [0, 0, 0, 5]


def test_a_packet_that_the_kernel_refuses_is_dropped_and_the_others_pass(stack: ExitStack) -> None:
    bench = Bench(stack)
    refused, *others = [frame(TCP6, bytes([number]), sequence=number * 1000) for number in range(3)]

    def refuse(file: io.FileIO, records: Sequence[memoryview]) -> tuple[int, int]:
        index = next((index for index, one in enumerate(records) if one[10:] == refused), None)
        return fast.send(file, records) if index is None else (fast.send(file, records[:index])[0], errno.EINVAL)

    bench.records = Refusing(refuse)
    bench.put(plain(refused), *map(plain, others))
    bench.start()
    assert [bench.take(), bench.take()] == list(map(plain, others))
    bench.stop()
    assert bench.failure is None
    assert (bench.sent, bench.dropped) == (2, 1)


def test_a_refusal_in_mid_bundle_splits_only_that_superpacket(stack: ExitStack) -> None:
    """Only the Python loop allows to stage the refusal of one superpacket in the middle of a bundle."""
    bench = Bench(stack)

    def refuse(file: io.FileIO, records: Sequence[memoryview]) -> tuple[int, int]:
        whole = [index for index, one in enumerate(records) if one[1]]
        return fast.send(file, records) if not whole else (fast.send(file, records[: whole[0]])[0], errno.EINVAL)

    bench.records = Refusing(refuse)
    alone = frame(TCP6, b"alone")
    train = frames(TCP4, [b"abcd"] * 3)
    bench.put(plain(alone), *map(plain, train))
    bench.start()
    assert [bench.take() for _ in range(4)] == [plain(alone), *map(plain, train)]
    bench.stop()
    assert bench.sent == 4


def test_packets_behind_a_refused_superpacket_are_sent_once(stack: ExitStack) -> None:
    bench = Bench(stack)
    alone = [frame(TCP6, b"alone"), frame(UDP4, b"too")]
    train = frames(TCP4, [b"abcd"] * 3)

    def refuse(file: io.FileIO, records: Sequence[memoryview]) -> tuple[int, int]:
        """Refuse superpackets, and the first packet of one."""
        bad = [index for index, one in enumerate(records) if one[1] or one[10:] == train[0]]
        return fast.send(file, records) if not bad else (fast.send(file, records[: bad[0]])[0], errno.EINVAL)

    bench.records = Refusing(refuse)
    bench.put(*map(plain, [*alone, *train]))
    bench.start()
    assert [bench.take() for _ in range(4)] == list(map(plain, [*alone, *train[1:]]))
    bench.stop()
    assert bench.failure is None
    assert (bench.sent, bench.dropped) == (4, 1)


@native
def test_the_native_loop_drops_and_counts_packets_while_the_link_is_down(stack: ExitStack) -> None:
    bench = NativeBench(stack, "/proc/self/mem")  # Nothing is mapped at its start: EIO.
    for number in range(1, 4):
        bench.socket.send(plain(frame(TCP4)))
        assert come_true(lambda number=number: bench.right.sent[DROPPED] == number)  # type: ignore[misc]
    assert bench.stop() == (0, None)


def test_packets_are_dropped_and_counted_while_the_link_is_down(stack: ExitStack) -> None:
    bench = Bench(stack)
    bench.records = Refusing(lambda file, records: (0, errno.EIO))
    bench.start()
    for number in range(1, 4):
        bench.put(plain(frame(TCP4)))
        assert come_true(lambda number=number: bench.dropped == number)  # type: ignore[misc]
    bench.stop()
    assert bench.failure is None


def test_a_target_that_breaks_ends_the_loop_with_its_error(stack: ExitStack) -> None:
    bench = Bench(stack)
    bench.sources[1] = []  # Else its end of file would be noticed first.
    bench.sockets[1].close()
    bench.put(plain(frame(TCP4)), plain(frame(TCP6)))
    bench.start()
    failure = bench.join()
    assert isinstance(failure, AdapterError)
    assert failure.errno == errno.EPIPE


@pytest.mark.parametrize("is_native", [False, pytest.param(True, marks=native)])
def test_packets_that_wait_for_room_are_dropped_and_counted_when_the_loop_fails(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, is_native: bool
) -> None:
    if not is_native:
        monkeypatch.setattr(fast, "pump", None)
    bench = Bench(stack, vnet_header=False)
    fill(bench.files[1])
    source, break_it = breakable(stack)
    bench.sources[1] = [source]
    bench.put(*[frame(UDP4, bytes([number])) for number in range(3)])
    bench.start()
    assert come_true(lambda: bench.received == 3)
    break_it()
    assert isinstance(bench.join(), AdapterError)
    assert (bench.received, bench.sent, bench.dropped) == (3, 0, 3)


@native
def test_packets_for_a_broken_target_are_dropped_and_counted(stack: ExitStack) -> None:
    bench = NativeBench(stack, "/dev/full")
    bench.socket.send(plain(frame(TCP4)))
    assert bench.join() == (errno.ENOSPC, bench.right)
    assert list(bench.right.sent) == [0, 0, 0, 1]


def breakable(stack: ExitStack) -> tuple[io.FileIO, Callable[[], None]]:
    """Return a source, and a function that makes it ready although it can never be read."""
    listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    listening.bind("")
    listening.listen()
    source = stack.enter_context(io.FileIO(os.dup(listening.fileno()), "r+"))
    os.set_blocking(source.fileno(), False)
    connecting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    return source, lambda: connecting.connect(listening.getsockname())


def test_a_source_that_breaks_ends_the_loop_with_its_error(stack: ExitStack) -> None:
    bench = Bench(stack)
    source, break_it = breakable(stack)
    bench.sources[0] = [source]
    break_it()
    bench.start()
    failure = bench.join()
    assert isinstance(failure, AdapterError)
    assert failure.errno == errno.EINVAL


def test_a_record_longer_than_any_packet_is_dropped(stack: ExitStack) -> None:
    bench = Bench(stack, vnet_header=False)
    bench.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    bench.put(b"\x45" * 65_536, b"\x45" * 40)
    bench.start()
    assert bench.take() == b"\x45" * 40
    bench.stop()
    assert bench.dropped == bench.sent == 1


def test_a_record_that_contradicts_itself_is_dropped(stack: ExitStack) -> None:
    bench = Bench(stack)
    bench.put(record(frame(TCP4), gso_type=1), plain(frame(TCP4)))
    bench.start()
    assert bench.take() == plain(frame(TCP4))
    bench.stop()
    assert bench.sent == 1


def test_a_source_that_was_emptied_meanwhile_is_read_again(stack: ExitStack) -> None:
    """Another reader was faster. Only the Python loop allows to stage that."""
    bench = Bench(stack)
    asked: list[int] = []

    def receive(file: io.FileIO, memory: memoryview, limit: int, wide: bool = False) -> list[memoryview]:
        asked.append(file.fileno())
        return fast.receive(file, memory, limit, wide) if asked.count(file.fileno()) > 2 else []

    bench.records = Refusing(fast.send)
    bench.records.receive = receive
    bench.put(plain(frame(TCP4)))
    bench.start()
    assert bench.take() == plain(frame(TCP4))
    bench.stop()
    assert asked.count(bench.files[0].fileno()) > 2


def test_packets_from_all_sources_of_one_side_pass(stack: ExitStack) -> None:
    bench, other = Bench(stack, vnet_header=False), Bench(stack)
    bench.sources[0] = [bench.files[0], other.files[0]]
    packets = [frame(UDP4, bytes([number]) * 1000) for number in range(200)]
    bench.start()
    feeding = [threading.Thread(target=one.put, args=packets) for one in (bench, other)]
    for thread in feeding:
        thread.start()
        stack.callback(thread.join, SECONDS)
    # Both sources are ready while there is no room; neither is read before there is.
    assert come_true(lambda: bench.received > bench.sent > 0)
    taken = [bench.take() for _ in range(400)]
    assert sorted(taken) == sorted(packets * 2)
    bench.stop()
    assert bench.dropped == 0


def test_packets_of_two_ready_sources_wait_for_room(stack: ExitStack) -> None:
    bench, other = Bench(stack, vnet_header=False), Bench(stack, vnet_header=False)
    bench.sources[0] = [bench.files[0], other.files[0]]
    filler, packet = bytes(20), frame(UDP4, bytes(1000))
    before = 0
    while bench.files[1].write(filler) is not None:
        before += 1
    bench.put(packet)
    other.put(packet)
    bench.start()
    assert come_true(lambda: bench.received == 1)
    assert [bench.take() for _ in range(before)] == [filler] * before
    assert [bench.take(), bench.take()] == [packet, packet]
    bench.stop()
    assert (bench.sent, bench.dropped) == (2, 0)
