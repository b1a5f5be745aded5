"""Reading and writing a descriptor in the native core against the reference.

A pair of sockets that keeps messages apart stands for a TUN device and the network behind it.
"""

import errno
import io
import random
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cores import SOURCES, Core, contents, copies, fault_of_both, of_both, property_of
from tests.support.frames import (
    NEEDS_CSUM,
    TCP4,
    UDP6,
    frame,
    frames,
    naive_split,
    opened,
    record,
    records_of,
    superpacket,
    traffic,
)
from threepipe.core.superpacket import HEADER_SIZE, MAX_RECORD

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such pairs of sockets")
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
def test_receive_stops_when_nothing_is_left_or_there_is_no_room(limit: int, room: int) -> None:
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
@pytest.mark.parametrize("vnet_header", [True, False])
@pytest.mark.parametrize("limit", [1, 4, 256])
def test_receive_packets_returns_copies_of_the_packets_of_all_records(limit: int, vnet_header: bool) -> None:
    packets = [frame(TCP4, b"abcdef"), frame(UDP6, b"open")]
    records: list[bytes | memoryview] = [
        record(packets[0]),
        superpacket(TCP4, packets[0], 2),
        record(opened(packets[1], 40, UDP6), flags=NEEDS_CSUM, start=40, field=6),
        bytes(HEADER_SIZE + 20),
    ]

    def ask(core: Core) -> object:
        told = []
        with wire() as (file, far):
            for data in records:
                far.send(data)
            while found := core.receive_packets(file, memoryview(bytearray(1 << 20)), limit, vnet_header):
                told.append(found)
        return told

    found = [packet for bundle in of_both(ask) for packet in bundle]
    if vnet_header:
        halves = naive_split(bytes(superpacket(TCP4, packets[0], 2)))
        assert found == [packets[0], *halves, packets[1], bytes(20)]
    else:
        assert found == list(map(bytes, records))


@LINUX
def test_receive_packets_of_a_record_without_a_whole_header_raises() -> None:
    def ask(core: Core) -> object:
        with wire() as (file, far):
            far.send(bytes(HEADER_SIZE - 1))
            return core.receive_packets(file, memoryview(bytearray(1 << 20)), 256, True)

    fault_of_both(ask, Exception)


@LINUX
def test_receive_returns_views_of_the_given_memory() -> None:
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
def test_the_longest_record_is_sent_and_received(kind: str) -> None:
    data = random.Random(1).randbytes(MAX_RECORD)

    def ask(core: Core) -> object:
        with wire(getattr(socket, kind)) as (file, far):
            sent = core.send(file, [memoryview(data), memoryview(data)])
            far.send(data)
            got = [far.recv(1 << 20), far.recv(1 << 20)]
            return sent, got == [data] * 2, contents(core.receive(file, memoryview(bytearray(MAX_RECORD)), 9)) == [data]

    assert of_both(ask) == ((2, 0), True, True)


@LINUX
def test_receive_at_the_end_of_the_stream_returns_nothing() -> None:
    def ask(core: Core) -> object:
        with wire() as (file, far):
            far.send(RECORDS[0])
            far.close()
            memory = memoryview(bytearray(1 << 20))
            return [contents(core.receive(file, memory, 9)) for _ in range(2)]

    assert of_both(ask) == [RECORDS[:1], []]


@LINUX
@pytest.mark.parametrize("copied", [False, True])
def test_receive_raises_the_error_of_the_system(copied: bool) -> None:
    def ask(core: Core) -> object:
        with wire() as (file, far):
            core.send(file, [memoryview(b"unread")])
            far.close()
            memory = memoryview(bytearray(1 << 20))
            return core.receive_packets(file, memory, 9, True) if copied else core.receive(file, memory, 9)

    ours, theirs = fault_of_both(ask, ConnectionResetError)
    assert (type(theirs), theirs.args) == (type(ours), ours.args)
    assert theirs.args[0] == errno.ECONNRESET


@LINUX
def test_receive_returns_the_records_before_a_fault() -> None:
    """At the end of a mapping of the process's memory, a read returns the rest, and the next one fails."""
    with open("/proc/self/maps") as file:
        stretches = [line.split()[:2] for line in file]
    starts = {span.split("-")[0] for span, _ in stretches}
    ends = [span.split("-")[1] for span, rights in stretches if rights.startswith("rw")]
    end = next(int(end, 16) for end in ends if end not in starts)

    def ask(core: Core) -> object:
        with io.FileIO("/proc/self/mem") as memory:
            memory.seek(end - 100)
            found = contents(core.receive(memory, memoryview(bytearray(3 * MAX_RECORD)), 256))
            memory.seek(end - 100)
            assert core.receive_packets(memory, memoryview(bytearray(3 * MAX_RECORD)), 256, False) == found
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
def test_send_stops_when_there_is_no_room(kind: str, size: int) -> None:
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
            while core.send(file, records)[0]:  # There is room for some records, and then for none.
                pass
            told.append(core.send(file, records))
        return told

    (first, error), *_, last = of_both(ask)
    assert 0 < first < 5000
    assert error == 0
    assert last == (0, 0)


@LINUX
def test_send_returns_the_count_before_a_fault() -> None:
    def ask(core: Core) -> object:
        with wire(socket.SOCK_DGRAM) as (file, far):
            far.setblocking(False)
            told = core.send(file, [memoryview(b"a"), memoryview(b"b"), memoryview(bytes(1 << 22)), memoryview(b"c")])
            return told, far.recv(9), far.recv(9), core.send(file, [memoryview(bytes(1 << 22))])

    assert of_both(ask) == ((2, errno.EMSGSIZE), b"a", b"b", (0, errno.EMSGSIZE))


@LINUX
@pytest.mark.parametrize(("kind", "error"), [("SOCK_SEQPACKET", errno.EPIPE), ("SOCK_DGRAM", errno.ECONNREFUSED)])
def test_send_without_a_receiver_returns_the_error(kind: str, error: int) -> None:
    def ask(core: Core) -> object:
        with wire(getattr(socket, kind)) as (file, far):
            far.close()
            return core.send(file, [memoryview(b"a")]), core.send(file, [])

    assert of_both(ask) == ((0, error), (0, 0))


@LINUX
def test_a_closed_file_raises_value_error() -> None:
    with wire() as (file, _):
        file.close()
        fault_of_both(lambda core: core.send(file, [memoryview(b"a")]), ValueError)
        fault_of_both(lambda core: core.receive(file, memoryview(bytearray(MAX_RECORD)), 1), ValueError)


@LINUX
@property_of(150)
@given(SOURCES, st.integers(0, 16), st.booleans(), st.booleans(), st.integers(0, 4))
def test_packets_sent_coalesced_are_those_of_coalesce_and_send(
    source: random.Random, count: int, as_records: bool, udp: bool, room: int
) -> None:
    """`room` is that of the target, in records; none of the packets may get lost or change."""
    packets = traffic(source, count)
    pieces = records_of(source, packets) if as_records else packets

    def ask(core: Core) -> object:
        with wire(socket.SOCK_DGRAM) as (file, far):
            queued = 0
            while core.send(file, [memoryview(b"before")]) == (1, 0):
                queued += 1
            for _ in range(min(room, queued)):
                far.recv(9)
            mine = copies(pieces)
            rest, sent, error = core.send_coalesced(file, mine, as_records, udp)
            assert contents(mine) == list(map(bytes, pieces))
            got = [far.recv(1 << 17) for _ in range(queued - min(room, queued) + sent)][queued - min(room, queued) :]
            assert (got + contents(rest), error) == (contents(core.coalesce(copies(pieces), as_records, udp)), 0)
            return got, contents(rest), sent

    of_both(ask)


@LINUX
@pytest.mark.parametrize("size", [1, 30])
def test_a_superpacket_of_more_pieces_than_a_system_call_takes_is_sent_whole(size: int) -> None:
    packets = frames(TCP4, [bytes([number % 251]) * size for number in range(1500)])

    def ask(core: Core) -> object:
        with wire() as (file, far):
            rest, sent, error = core.send_coalesced(file, packets, False, True)
            return contents(rest), sent, error, far.recv(1 << 17)

    rest, sent, error, record = of_both(ask)
    assert (rest, sent, error) == ([], 1, 0)
    assert naive_split(record) == packets


@LINUX
def test_a_record_that_is_refused_is_told_with_those_behind_it() -> None:
    packets = [*frames(TCP4, [b"abcd"] * 3), *frames(UDP6, [b"abcd"] * 3)]

    def ask(core: Core) -> object:
        with open("/dev/full", "r+b", buffering=0) as file:
            assert isinstance(file, io.FileIO)
            rest, sent, error = core.send_coalesced(file, packets, False, True)
            return contents(rest), sent, error

    rest, sent, error = of_both(ask)
    assert [naive_split(record) for record in rest] == [packets[:3], packets[3:]]
    assert (sent, error) == (0, errno.ENOSPC)
