"""The native core against its reference: the same bytes, the same numbers, the same errors for whatever comes."""

import errno
import io
import os
import random
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import pairwise
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.frames import (
    DONT_FRAGMENT,
    EACH_KIND,
    KINDS,
    TCP4,
    UDP4,
    Kind,
    completed,
    frame,
    frames,
    header_summing_to_zero,
    icmp,
    kind_of,
    naive_merge,
    network_size,
    partial,
    record,
    records_of,
    summing_to_zero,
    traffic,
    with_bits,
    with_field,
)
from tests.support.rfc1071 import naive_checksum
from tests.support.superpackets import HOSTILE, superpackets
from threepipe.core import coalesce as pure_coalesce
from threepipe.core import descriptor as pure_descriptor
from threepipe.core import packet as pure_packet
from threepipe.core import superpacket as pure_offload
from threepipe.core.packet import Packet
from threepipe.core.superpacket import HEADER_SIZE, MAX_RECORD, PLAIN_HEADER

if TYPE_CHECKING:
    import threepipe_native as native
else:
    native = pytest.importorskip(
        "threepipe_native", reason="the native core is not installed: there is nothing to compare"
    )


class Core(NamedTuple):
    """The functions of one implementation."""

    internet_checksum: Callable[..., int]
    measure: Callable[..., tuple[int, int, bool]]
    split: Callable[[Sequence[memoryview]], list[memoryview]]
    coalesce: Callable[[Sequence[memoryview], bool, bool], list[memoryview]]
    receive: Callable[[io.FileIO, memoryview, int], list[memoryview]]
    send: Callable[[io.FileIO, Sequence[memoryview]], tuple[int, int]]


PURE = Core(
    pure_packet.internet_checksum,
    pure_offload.measure,
    pure_offload.split,
    pure_coalesce.coalesce,
    pure_descriptor.receive,
    pure_descriptor.send,
)
NATIVE = Core(
    native.internet_checksum,
    native.measure,
    native.split,
    native.coalesce,
    getattr(native, "receive", pure_descriptor.receive),  # On Windows it has none.
    getattr(native, "send", pure_descriptor.send),
)


def property_of(examples: int) -> settings:
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(derandomize=True, deadline=None, max_examples=examples, suppress_health_check=quiet)


def of_both(ask: Callable[[Core], Any]) -> Any:
    """What both answer."""
    ours, theirs = ask(PURE), ask(NATIVE)
    assert theirs == ours
    return ours


def fault_of_both(ask: Callable[[Core], object], kind: type[Exception]) -> list[Exception]:
    """The exceptions that both raise."""
    caught = []
    for core in (PURE, NATIVE):
        with pytest.raises(kind) as info:
            ask(core)
        caught.append(info.value)
    return caught


def contents(pieces: Sequence[memoryview]) -> list[bytes]:
    return [bytes(piece) for piece in pieces]


def copies(pieces: Sequence[Packet]) -> list[memoryview]:
    return [memoryview(bytearray(piece)) for piece in pieces]


def assert_same_packets(records: Sequence[Packet]) -> None:
    """`measure` and `split`, twice, for the first time may change records; and what became of these."""

    def ask(core: Core) -> object:
        mine = copies(records)
        told = core.measure(mine)
        packets = contents(core.split(mine))
        kept = contents(mine)
        return told, packets, kept, core.measure(mine), contents(core.split(mine)), contents(mine)

    of_both(ask)


def assert_same_records(pieces: Sequence[Packet], headed: bool, udp: bool) -> None:
    """`coalesce`, and what is told about its results; the pieces stay as they were."""

    def ask(core: Core) -> object:
        mine = copies(pieces)
        told = core.measure(mine, headed)
        found = core.coalesce(mine, headed, udp)
        assert contents(mine) == [bytes(piece) for piece in pieces]
        return told, contents(found), core.measure(found), contents(core.split(found))

    of_both(ask)


# Checksums.


def checksum_of_both(data: Packet, initial: int = 0) -> int:
    checksum: int = of_both(lambda core: core.internet_checksum(data, initial))
    return checksum


@property_of(500)
@given(st.binary(max_size=200), st.integers(0, 0xFFFF) | st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_checksums(data: bytes, initial: int, start: int) -> None:
    assert checksum_of_both(memoryview(data)[start:], initial) == naive_checksum(data[start:], initial)


@pytest.mark.parametrize("initial", [0, 1, 0xFFFF, 0x10000, 0xFFFF0000, 2**32 - 1, 2**63, 2**64 - 1, 2**64 - 2**16])
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x80\0", b"\xff\xfe\1"])
def test_checksums_of_every_length(fill: bytes, initial: int) -> None:
    data = memoryview(fill * 150)
    for size in range(150):
        for part in (data[:size], data[1 : 1 + size]):
            assert checksum_of_both(part, initial) in range(0x10000)


@pytest.mark.parametrize("size", [1499, 1500, 9000, 65534, 65535, 1 << 20])
def test_checksums_of_much(size: int) -> None:
    data = random.Random(size).randbytes(size)
    for buffer in (data, bytearray(data), memoryview(data), b"\xff" * size, bytes(size)):
        checksum_of_both(buffer)


# Records that become packets.


@property_of(400)
@given(st.lists(HOSTILE, max_size=3))
def test_hostile_records(records: list[memoryview]) -> None:
    assert_same_packets(records)
    for udp in (False, True):
        assert_same_records(records, True, udp)


@property_of(300)
@given(st.lists(superpackets(), max_size=3), st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=3))
def test_superpackets(records: list[memoryview], damage: list[tuple[int, int]]) -> None:
    assert_same_packets(records)
    for place, value in damage:
        for view in records[:1]:
            view[place % len(view)] = value
    assert_same_packets(records)


@property_of(300)
@given(st.lists(st.binary(min_size=HEADER_SIZE, max_size=100), max_size=5))
def test_random_records(records: list[bytes]) -> None:
    assert_same_packets(records)
    assert_same_records(records, True, True)


@EACH_KIND
def test_records_cut_anywhere(kind: Kind) -> None:
    packets = frames(kind, [b"abcd", b"efgh", b"ij"], options=b"\1\1\1\1")
    for whole in (naive_merge(kind, packets), bytes(partial(kind, packets[0])), PLAIN_HEADER + packets[0]):
        for size in range(HEADER_SIZE, len(whole) + 1):
            assert_same_packets([whole[:size]])
            assert_same_records([whole[:size], *map(partial_of(kind), packets)], True, True)


def partial_of(kind: Kind) -> Callable[[bytes], memoryview]:
    return lambda packet: partial(kind, packet)


@EACH_KIND
@pytest.mark.parametrize("size", [97, 536, 1448, 0xFFFF])
def test_the_longest_superpackets(kind: Kind, size: int) -> None:
    headers = network_size(kind) + (20 if kind.protocol == 6 else 8)
    payload = random.Random(size).randbytes(0xFFFF - headers)
    whole = bytearray(naive_merge(kind, [frame(kind, payload)]))
    whole[4:6] = struct.pack("=H", size)
    assert_same_packets([whole])
    assert_same_packets([whole + b"x"])


@EACH_KIND
@pytest.mark.parametrize("size", [0xFFFE, 0xFFFF, 0x10000, 0x10001])
def test_packets_about_as_long_as_they_may_be(kind: Kind, size: int) -> None:
    packet = frame(kind) + bytes(size - len(frame(kind)))
    for one in (record(packet), partial(kind, packet)):
        assert_same_packets([one])
        assert_same_records([one, one], True, True)


@EACH_KIND
@pytest.mark.parametrize("words", range(16))
def test_superpackets_that_say_where_their_headers_end(kind: Kind, words: int) -> None:
    whole = bytearray(naive_merge(kind, frames(kind, [b"abcdefghijklmnopqrst"] * 3)))
    for version in (4, 6, 5):
        whole[HEADER_SIZE] = version << 4 | words
        for start in (4 * words, 20, 40):
            whole[6:8] = struct.pack("=H", start)
            assert_same_packets([whole])


def test_one_record_twice_in_a_bundle() -> None:
    """The same memory: what was completed once is not completed again."""

    def ask(core: Core) -> object:
        view = copies([partial(UDP4, frame(UDP4))])[0]
        return contents(core.split([view, view, memoryview(view)])), bytes(view)

    of_both(ask)


def test_packets_lie_in_their_record_or_apart() -> None:
    def ask(core: Core) -> object:
        plain, open_, whole = mine = copies(
            [
                PLAIN_HEADER + icmp(4),
                partial(UDP4, frame(UDP4)),
                naive_merge(TCP4, frames(TCP4, [b"abcd", b"efgh"])),
            ]
        )
        packets = core.split(mine)
        for packet in packets:
            assert not packet.readonly
            packet[-1] = 0xEE
        return contents(packets), bytes(plain), bytes(open_), bytes(whole)

    of_both(ask)


# Packets that become records.


SOURCES = st.randoms(use_true_random=False)


@property_of(150)
@given(SOURCES, st.integers(0, 16), st.booleans(), st.booleans())
def test_traffic(source: random.Random, count: int, as_records: bool, udp: bool) -> None:
    packets = traffic(source, count)
    pieces = records_of(source, packets) if as_records else packets
    assert_same_records(pieces, as_records, udp)
    if as_records:
        assert_same_packets(pieces)


@property_of(500)
@given(
    st.lists(
        st.builds(
            lambda first, rest: first + rest,
            st.sampled_from([b"", b"\x45", b"\x60", b"\x45\0\0\x28\0\0\0\0\x40\x06", b"\x60\0\0\0\0\x14\x11\x40"]),
            st.binary(max_size=80) | st.sampled_from([bytes(80), b"\xff" * 80, b"\x50\x10" * 40]),
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_hostile_packets(pieces: list[bytes], udp: bool) -> None:
    assert_same_records(pieces, False, udp)
    assert_same_records([PLAIN_HEADER + piece for piece in pieces], True, udp)


@property_of(500)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(1, 255)), max_size=4),
    st.booleans(),
)
def test_damaged_trains(kind: Kind, damage: list[tuple[int, int, int]], left_open: bool) -> None:
    packets = frames(kind, [b"abcd", b"efgh", b"ijkl", b"mn"], options=b"\1\1\1\1")
    pieces = [bytes(partial(kind, packet)) if left_open else PLAIN_HEADER + packet for packet in packets]
    for which, place, bits in damage:
        pieces[which] = with_bits(pieces[which], place % len(pieces[which]), bits)
    assert_same_records(pieces, True, True)
    assert_same_packets(pieces)


@EACH_KIND
@pytest.mark.parametrize("bit", range(8))
def test_trains_with_every_bit_of_a_header_turned_over(kind: Kind, bit: int) -> None:
    """In one packet of five, under the checksums from before and under right ones, of complete and open packets."""
    packets = frames(kind, [b"abcdef"] * 5, options=bytes([8, 10, 1, 2]), fragment=0)
    start, end = network_size(kind), len(packets[2]) - 6
    for place in range(end):
        wrong = with_bits(packets[2], place, 1 << bit)
        right = with_field(wrong, 10, naive_checksum(with_field(wrong, 10, 0)[:20])) if kind.version == 4 else wrong
        for changed in (wrong, right, completed(right, start, kind)):
            train = [*packets[:2], changed, *packets[3:]]
            assert_same_records(train, False, True)
            assert_same_records([partial(kind, packet) for packet in train], True, True)
        header = with_bits(bytes(partial(kind, packets[2])), place % HEADER_SIZE, 1 << bit)
        train = [bytes(partial(kind, packet)) for packet in packets]
        assert_same_records([*train[:2], header, *train[3:]], True, True)


@EACH_KIND
@pytest.mark.parametrize("bit", range(8))
def test_bursts_with_every_bit_of_a_record_turned_over(kind: Kind, bit: int) -> None:
    """Many at once, whose checksums were left open."""
    for first, fragment in [(0x1234, 0), (0xFFF8, 0), (0xFFF8, DONT_FRAGMENT)]:
        packets = frames(kind, [b"abcd"] * 24, identification=first, fragment=fragment)
        burst = [bytes(partial(kind, packet)) for packet in packets]
        assert_same_records(burst, True, True)
        for place in range(len(burst[0]) - 4):
            changed = with_bits(burst[12], place, 1 << bit)
            assert_same_records([*burst[:12], changed, *burst[13:]], True, True)
            assert_same_packets([changed, *burst[13:]])


@EACH_KIND
@pytest.mark.parametrize("value", [0, 0xFFFF])
@pytest.mark.parametrize("place", range(4))
def test_both_zeros(kind: Kind, place: int, value: int) -> None:
    start = network_size(kind)
    packets = frames(kind, [b"abcdef"] * 4)
    packets[place] = with_field(summing_to_zero(packets[place], start, kind), start + kind.field, value)
    assert_same_records(packets, False, True)
    assert_same_packets([partial(kind, packet) for packet in packets])
    if kind.version == 4:
        packets = frames(kind, [b"abcdef"] * 4)
        packets[place] = with_field(header_summing_to_zero(packets[place]), 10, value)
        assert_same_records(packets, False, True)
        assert_same_records([partial(kind, packet) for packet in packets], True, True)


@EACH_KIND
@pytest.mark.parametrize("excess", [0, 1])
def test_the_longest_trains(kind: Kind, excess: int) -> None:
    headers = network_size(kind) + (20 if kind.protocol == 6 else 8)
    packets = frames(kind, [*[b"x" * 1400] * 46, b"y" * ((0xFFFF - headers) % 1400 + excess), *[b"x" * 1400] * 3])
    assert_same_records(packets, False, True)
    assert_same_records([partial(kind, packet) for packet in packets], True, True)


@EACH_KIND
@pytest.mark.parametrize("left_open", [False, True])
def test_trains_of_many(kind: Kind, left_open: bool) -> None:
    for fragment, size in [(0, 1), (DONT_FRAGMENT, 1), (0, 1000), (DONT_FRAGMENT, 1000)]:
        packets = frames(kind, [bytes(size)] * 140, fragment=fragment, identification=0xFFC0)
        pieces = [partial(kind, packet) if left_open else record(packet) for packet in packets]
        for number in (63, 64, 65, 66, 67, 128, 129, 140):
            assert_same_records(pieces[:number], True, True)
            assert_same_packets(pieces[:number])
        assert_same_records([*pieces[:20], record(icmp(6)), *pieces[20:]], True, True)


@EACH_KIND
def test_many_records_of_which_one_is_another(kind: Kind) -> None:
    packet = frame(kind)
    whole = naive_merge(kind, frames(kind, [b"abcd"] * 3))
    for usual in (PLAIN_HEADER + packet, bytes(partial(kind, packet)), whole):
        others = [usual[:-1], usual + b"x", usual[: HEADER_SIZE + 20], usual[: HEADER_SIZE + 39], usual[:HEADER_SIZE]]
        others += [usual.ljust(HEADER_SIZE + size, b"x") for size in (0xFFFF, 0x10000) if not usual[1]]
        others += [with_bits(usual, place, 1 << bit) for place in range(HEADER_SIZE + 1) for bit in range(8)]
        for other in others:
            assert_same_packets([other] * 9)
            assert_same_packets([*[usual] * 9, other])
            assert_same_packets([other, *[usual] * 9])


def test_many_flows() -> None:
    """As many as a table of flows may have to be made larger for, each with a train of its own."""
    trains = [frames(KINDS[port % 4], [b"abcd"] * 3, ports=(port // 4, 7)) for port in range(1000)]
    mixed = [packet for turn in zip(*trains, strict=True) for packet in turn]
    assert_same_records(mixed, False, True)
    assert len(NATIVE.coalesce(copies(mixed), False, True)) == 1000


def test_new_records_are_apart_and_others_the_very_same() -> None:
    def ask(core: Core) -> object:
        packets = [*frames(TCP4, [b"abcd"] * 2), icmp(4), *frames(UDP4, [b"abcd"] * 2)]
        mine = copies([PLAIN_HEADER + packet for packet in packets])
        found = core.coalesce(mine, True, True)
        before = contents(mine)
        for view in (found[0], found[2]):
            assert not view.readonly
            view[:] = b"\xee" * len(view)
        assert contents(mine) == before
        mine[2][-1] = 0xAB
        return contents(found)

    of_both(ask)


# What neither takes.


@pytest.mark.parametrize("size", range(HEADER_SIZE))
def test_records_without_a_whole_header_are_refused(size: int) -> None:
    fault_of_both(lambda core: core.split(copies([bytes(size)])), Exception)
    fault_of_both(lambda core: core.split(copies([b"\1" * size])), Exception)


def test_a_checksum_is_not_completed_in_memory_that_cannot_be_written() -> None:
    view = memoryview(bytes(partial(UDP4, frame(UDP4))))
    fault_of_both(lambda core: core.split([view]), TypeError)
    assert of_both(lambda core: core.measure([view])) == (1, len(view) - HEADER_SIZE, True)


def test_released_views_are_refused() -> None:
    view = record(frame(UDP4))
    view.release()
    for ask in (
        lambda core: core.measure([view]),
        lambda core: core.split([view]),
        lambda core: core.coalesce([view], True, True),
        lambda core: core.internet_checksum(view),
    ):
        fault_of_both(ask, ValueError)


# Descriptors. A pair of sockets that keeps messages apart stands for a TUN and the network behind it.

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="a pair of such sockets is had on Linux")
RECORDS = [bytes([index]) * (HEADER_SIZE + 37 * index) for index in range(1, 20)]


@contextmanager
def wire(
    kind: int = socket.SOCK_SEQPACKET if sys.platform == "linux" else 0,
) -> Iterator[tuple[io.FileIO, socket.socket]]:
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    near.setblocking(False)
    far.setblocking(False)
    with io.FileIO(near.detach(), "r+") as file, far:
        yield file, far


@LINUX
@pytest.mark.parametrize(
    "room", [MAX_RECORD - 1, MAX_RECORD, MAX_RECORD + 46, MAX_RECORD + 47, MAX_RECORD + 48, 1 << 20]
)
@pytest.mark.parametrize("limit", [0, 1, 2, 18, 19, 20, 256])
def test_receive_until_there_is_nothing_or_no_room(limit: int, room: int) -> None:
    def ask(core: Core) -> object:
        told = []
        with wire() as (file, far):
            for data in RECORDS:
                far.send(data)
            for _ in range(3):
                memory = bytearray(room)
                views = core.receive(file, memoryview(memory), limit)
                assert all(view.obj is memory for view in views)
                assert not any(view.readonly for view in views)
                told.append((contents(views), bytes(memory)))
        return told

    told = of_both(ask)
    assert [data for found, _ in told for data in found] == RECORDS[: sum(len(found) for found, _ in told)]
    if limit >= 19 and room == 1 << 20:
        assert told[0][0] == RECORDS


@LINUX
def test_receive_gives_views_of_the_memory_it_was_given() -> None:
    def ask(core: Core) -> object:
        with wire() as (file, far):
            far.send(RECORDS[0])
            far.send(RECORDS[1])
            memory = bytearray(b"\xee" * (2 * MAX_RECORD))
            first, second = core.receive(file, memoryview(memory)[5:], 256)
            first[0], second[-1] = 0xAA, 0xBB
            return bytes(memory)

    of_both(ask)


@LINUX
@pytest.mark.parametrize("kind", ["SOCK_SEQPACKET", "SOCK_DGRAM"])
def test_the_longest_record(kind: str) -> None:
    data = random.Random(1).randbytes(MAX_RECORD)

    def ask(core: Core) -> object:
        with wire(getattr(socket, kind)) as (file, far):
            sent = core.send(file, [memoryview(data), memoryview(data)])
            far.send(data)
            got = [far.recv(1 << 20), far.recv(1 << 20)]
            return sent, got == [data] * 2, contents(core.receive(file, memoryview(bytearray(MAX_RECORD)), 9)) == [data]

    assert of_both(ask) == ((2, 0), True, True)


@LINUX
def test_receive_at_an_end() -> None:
    def ask(core: Core) -> object:
        with wire() as (file, far):
            far.send(RECORDS[0])
            far.close()
            memory = memoryview(bytearray(1 << 20))
            return [contents(core.receive(file, memory, 9)) for _ in range(2)]

    assert of_both(ask) == [RECORDS[:1], []]


@LINUX
def test_receive_says_what_the_system_says() -> None:
    def ask(core: Core) -> object:
        with wire() as (file, far):
            core.send(file, [memoryview(b"unread")])
            far.close()
            return core.receive(file, memoryview(bytearray(1 << 20)), 9)

    ours, theirs = fault_of_both(ask, ConnectionResetError)
    assert (type(theirs), theirs.args) == (type(ours), ours.args)
    assert theirs.args[0] == errno.ECONNRESET


@LINUX
def test_receive_keeps_what_came_before_a_fault() -> None:
    """Where a stretch of a process's memory ends, reading it gives what there is, and then an error."""
    with open("/proc/self/maps") as file:
        stretches = [line.split()[:2] for line in file]
    starts = {span.split("-")[0] for span, _ in stretches}
    ends = [span.split("-")[1] for span, rights in stretches if rights.startswith("rw")]
    end = next(int(end, 16) for end in ends if end not in starts)

    def ask(core: Core) -> object:
        with io.FileIO("/proc/self/mem") as memory:
            memory.seek(end - 100)
            found = contents(core.receive(memory, memoryview(bytearray(3 * MAX_RECORD)), 256))
            return found, memory.tell() - end

    found, position = of_both(ask)
    assert [len(data) for data in found] == [100]
    assert position == 0

    def ask_again(core: Core) -> object:
        with io.FileIO("/proc/self/mem") as memory:
            memory.seek(end)
            return core.receive(memory, memoryview(bytearray(MAX_RECORD)), 256)

    ours, theirs = fault_of_both(ask_again, OSError)
    assert theirs.args == ours.args


@LINUX
@pytest.mark.parametrize("size", [100, 1500, 60_000])
@pytest.mark.parametrize("kind", ["SOCK_SEQPACKET", "SOCK_DGRAM"])
def test_send_until_there_is_no_room(kind: str, size: int) -> None:
    def ask(core: Core) -> object:
        told = []
        with wire(getattr(socket, kind)) as (file, far):
            records = [memoryview(index.to_bytes(2, "big") * (size // 2)) for index in range(5000)]
            for _ in range(3):
                written, error = core.send(file, records)
                got = [far.recv(1 << 17) for _ in range(written)]
                assert got == records[:written]
                with pytest.raises(BlockingIOError):
                    far.recv(1)
                records = records[written:]
                told.append((written, error))
            while core.send(file, records)[0]:  # Room for less than all, and then for none.
                pass
            told.append(core.send(file, records))
        return told

    (first, error), *_, last = of_both(ask)
    assert 0 < first < 5000
    assert error == 0
    assert last == (0, 0)


@LINUX
def test_send_says_how_far_it_came_before_a_fault() -> None:
    def ask(core: Core) -> object:
        with wire(socket.SOCK_DGRAM) as (file, far):
            far.setblocking(False)
            told = core.send(file, [memoryview(b"a"), memoryview(b"b"), memoryview(bytes(1 << 22)), memoryview(b"c")])
            return told, far.recv(9), far.recv(9), core.send(file, [memoryview(bytes(1 << 22))])

    assert of_both(ask) == ((2, errno.EMSGSIZE), b"a", b"b", (0, errno.EMSGSIZE))


@LINUX
@pytest.mark.parametrize(("kind", "error"), [("SOCK_SEQPACKET", errno.EPIPE), ("SOCK_DGRAM", errno.ECONNREFUSED)])
def test_send_to_nobody(kind: str, error: int) -> None:
    def ask(core: Core) -> object:
        with wire(getattr(socket, kind)) as (file, far):
            far.close()
            return core.send(file, [memoryview(b"a")]), core.send(file, [])

    assert of_both(ask) == ((0, error), (0, 0))


@LINUX
def test_a_closed_file_is_refused() -> None:
    with wire() as (file, _):
        file.close()
        fault_of_both(lambda core: core.send(file, [memoryview(b"a")]), ValueError)
        fault_of_both(lambda core: core.receive(file, memoryview(bytearray(MAX_RECORD)), 1), ValueError)


# Much of it.


class Disagreement(AssertionError):
    """Where the two differ, with what makes it happen again."""


class Batch:
    """Bundles from a seed, each put together from a pool of traffic, changed in places, and given to both."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.source = random.Random(seed)
        self.frames = 0
        small, large = (1, 2, 7, 8, 40, 100), (600, 1448, 9000)
        packets = [traffic(self.source, 64, small if index % 8 else large) for index in range(40)]
        self.pool = [(packets, records_of(self.source, packets)) for packets in packets]

    def run(self, count: int) -> int:
        """Compare for at least `count` frames, and return for how many."""
        while self.frames < count:
            # Small bundles meet more kinds of neighbours; in large ones, trains grow long.
            packets, records = self._bundle(0), self._bundle(1)
            udp = self.source.randrange(8) > 0
            self._compare("coalesce packets", packets, False, udp)
            self._compare("coalesce records", records, True, udp)
            self._compare_split(records)
            self.frames += len(packets) + len(records)
        return self.frames

    def _bundle(self, which: int) -> list[bytes]:
        choose = self.source
        parts = []
        for _ in range(choose.randrange(1, 4)):
            part = choose.choice(self.pool)[which]
            start = choose.randrange(len(part))
            parts += part[start : start + choose.randrange(65)]
        for _ in range(min(len(parts), choose.randrange(4))):
            index = choose.randrange(len(parts))
            parts[index] = self._changed(parts[index], HEADER_SIZE if which else 0)
        return parts

    def _changed(self, piece: bytes, header: int) -> bytes:
        """A piece with a bit of its headers turned over, in half of the cases under right checksums."""
        choose = self.source
        if len(piece) <= header:
            return piece
        piece = with_bits(piece, choose.randrange(min(len(piece), header + 64)), 1 << choose.randrange(8))
        packet = piece[header:]
        kind = kind_of(packet)
        if kind and choose.randrange(2) and len(packet) < 2000:
            start = network_size(kind)
            if kind.version == 4:
                packet = with_field(packet, 10, naive_checksum(with_field(packet, 10, 0)[:20]))
            if len(packet) >= start + kind.field + 2:
                packet = completed(packet, start, kind)
        return piece[:header] + packet

    def _compare(self, what: str, pieces: list[bytes], headed: bool, udp: bool) -> None:
        mine = [memoryview(piece) for piece in pieces]
        ours, theirs = PURE.coalesce(mine, headed, udp), NATIVE.coalesce(mine, headed, udp)
        self._check(f"{what}, udp={udp}", pieces, ours, theirs)
        if not headed:  # The others are compared below, and in part come from here.
            if PURE.measure(ours) != NATIVE.measure(theirs):
                self._fail("measure what was coalesced", pieces)
            self._check("split what was coalesced", pieces, PURE.split(ours), NATIVE.split(theirs))

    def _compare_split(self, records: list[bytes]) -> None:
        joined, ends = b"".join(records), [0]
        for one in records:
            ends.append(ends[-1] + len(one))
        memory = bytearray(joined), bytearray(joined)
        ours, theirs = ([memoryview(part)[start:end] for start, end in pairwise(ends)] for part in memory)
        if PURE.measure(ours) != NATIVE.measure(theirs):
            self._fail("measure", records)
        self._check("split", records, PURE.split(ours), NATIVE.split(theirs))
        if memory[0] != memory[1]:
            self._fail("records after split", records)

    def _check(self, what: str, pieces: list[bytes], ours: Sequence[memoryview], theirs: Sequence[memoryview]) -> None:
        if list(map(len, ours)) != list(map(len, theirs)) or b"".join(ours) != b"".join(theirs):
            self._fail(what, pieces)

    def _fail(self, what: str, pieces: list[bytes]) -> None:
        listed = "\n".join(piece.hex() for piece in pieces)
        raise Disagreement(f"{what}: seed {self.seed}, after {self.frames} frames, pieces:\n{listed}")


def run_batch(seed: int, count: int) -> int:
    return Batch(seed).run(count)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_traffic(seed: int) -> None:
    assert run_batch(seed, 10_000) >= 10_000


@pytest.mark.soak
def test_ten_million_frames(capfd: pytest.CaptureFixture[str]) -> None:
    each, batches = 100_000, 100
    first = random.SystemRandom().randrange(10**9) * 1000
    done, begun = 0, time.monotonic()
    with ProcessPoolExecutor(os.cpu_count(), get_context("fork")) as workers:
        running = [workers.submit(run_batch, first + index, each) for index in range(batches)]
        try:
            for index, batch in enumerate(as_completed(running), 1):
                done += batch.result()
                if index % 10 == 0:
                    with capfd.disabled():
                        seconds = time.monotonic() - begun
                        sys.stdout.write(f"{done:,} frames from seed {first} in {seconds:.0f} s, no disagreement\n")
                        sys.stdout.flush()
        finally:
            workers.shutdown(cancel_futures=True)
    assert done >= 10_000_000
