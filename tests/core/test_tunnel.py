"""Tunnel superpackets: received as runs of their datagrams, and records with wide headers."""

import sys
from collections.abc import Sequence

import pytest

from tests.support.frames import TCP4, TCP6, UDP4, UDP6, Kind, frame, frames, network_size, partial, record, superpacket
from tests.support.tunnels import SHAPES, VXLAN, Shape, tunnelled, wide, wire
from threepipe.core.fast import measure, receive, receive_packets, send, send_coalesced, split
from threepipe.core.superpacket import GSO_TYPE, GSO_UDP_L4, HEADER_SIZE, MAX_DATAGRAMS
from threepipe.core.tunnel import FILLER, MAX_WIDE_RECORD

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such pairs of sockets")
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)


def received(*records: bytes | bytearray) -> list[memoryview]:
    with wire(*records) as (file, _):
        return receive(file, memoryview(bytearray(1 << 20)), 256, True)


def contents(pieces: Sequence[memoryview]) -> list[bytes]:
    return [bytes(piece) for piece in pieces]


@EACH_SHAPE
@pytest.mark.parametrize("length", [1, 100, 101, 950, 1000])
def test_a_tunnel_superpacket_arrives_as_its_datagrams(shape: Shape, length: int) -> None:
    made = tunnelled(shape, bytes(range(250)) * 4 if length == 1000 else b"x" * length, 100)
    runs = received(made.record)
    assert len(runs) == (1 if shape[2] or shape[0] is UDP4 else len(made.datagrams))
    assert measure(runs) == (len(made.datagrams), sum(map(len, made.datagrams)), True)
    assert contents(split(runs)) == made.datagrams


@EACH_SHAPE
def test_packets_of_a_tunnel_superpacket_are_copied_out_one_by_one(shape: Shape) -> None:
    made = tunnelled(shape, bytes(1000), 300)
    plain = frame(TCP6)
    with wire(wide(record(plain)), made.record, wide(record(plain))) as (file, _):
        packets = receive_packets(file, memoryview(bytearray(1 << 20)), 256, True, True)
    assert packets == [plain, *made.datagrams, plain]


@pytest.mark.parametrize("size", [48, 400, 1400, 30_000])
@pytest.mark.parametrize("outer", [UDP4, UDP6], ids=["over-udp4", "over-udp6"])
def test_the_longest_tunnel_superpacket_becomes_runs_that_the_kernel_takes(outer: Kind, size: int) -> None:
    made = tunnelled((outer, TCP4, True), bytes(65_535 - network_size(outer) - 8 - len(VXLAN) - 40), size)
    assert len(made.record) == MAX_WIDE_RECORD
    runs = received(made.record)
    assert max(map(len, runs)) <= HEADER_SIZE + 0xFFFF
    assert all(len(split([memoryview(bytearray(run))])) <= MAX_DATAGRAMS for run in runs)
    assert {run[GSO_TYPE] for run in runs[:-1]} <= {GSO_UDP_L4, 0}
    assert contents(split(runs)) == made.datagrams


def test_identifications_and_sequence_numbers_of_a_tunnel_wrap_around() -> None:
    shape = (UDP4, TCP4, True)
    made = tunnelled(shape, bytes(900), 100, identification=0xFFFE, sequence=0xFFFF_FF00, flags=0x19)
    assert contents(split(received(made.record))) == made.datagrams


CONTRADICTIONS = {
    "both IP versions outside": (1, 0x61),
    "another IP version outside": (1, 0x41),
    "no superpacket inside": (1, 0x20),
    "another IP version inside": (1, 0x24),
    "another protocol inside": (1, 0x25),
    "an IP header inside that ends elsewhere": (6, 71),
    "a transport header before the inner packet": (6, 40),
    "another checksum": (8, 6),
    "no open checksum": (0, 8),
    "no size": (4, 0),
    "an outer transport header elsewhere": (20, 24),
    "an inner packet before the end of the outer headers": (22, 27),
    "an inner packet elsewhere": (22, 51),
    "an inner packet behind the end": (23, 0xFF),
    "another version": (24, 0x65),
    "no version inside": (24 + 50, 0x05),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_tunnel_superpacket_that_contradicts_itself_has_no_packets(name: str) -> None:
    place, value = CONTRADICTIONS[name]
    data = bytearray(tunnelled((UDP4, TCP4, True), bytes(1000), 200).record)
    assert data[place] != value
    data[place] = value
    after = frame(TCP4)
    records = received(data, wide(record(after)))
    assert contents(split(records)) == [after]
    assert measure(records)[::2] == (1, False)


@pytest.mark.parametrize("length", range(24, 24 + 90))
def test_a_truncated_tunnel_superpacket_has_no_packets(length: int) -> None:
    data = tunnelled((UDP4, TCP4, True), bytes(1000), 300).record[:length]
    assert split(received(data)) == []


def test_other_records_with_wide_headers_arrive_as_they_are() -> None:
    records = [record(frame(TCP4)), partial(TCP6, frame(TCP6)), superpacket(TCP4, frame(TCP4, bytes(500)), 100)]
    assert contents(received(*map(wide, records))) == contents(records)


def test_records_are_written_with_wide_headers() -> None:
    records = [record(frame(TCP4)), partial(TCP6, frame(TCP6)), superpacket(TCP4, frame(TCP4, bytes(500)), 100)]
    with wire() as (file, far):
        assert send(file, records, True) == (3, 0)
        assert [far.recv(70_000) for _ in records] == [wide(each) for each in records]


@pytest.mark.parametrize("count", [1, 3, 1021, 1022, 1100])
def test_coalesced_packets_are_written_with_wide_headers(count: int) -> None:
    packets = frames(TCP4, [b"x"] * count)
    with wire() as (file, far):
        rest, written, error = send_coalesced(file, packets, False, True, True)
        assert (list(rest), written, error) == ([], 1, 0)
        data = far.recv(70_000)
    assert data[HEADER_SIZE : HEADER_SIZE + len(FILLER)] == FILLER
    assert contents(split([memoryview(bytearray(data[:HEADER_SIZE] + data[len(FILLER) + HEADER_SIZE :]))])) == packets


def test_writing_with_wide_headers_stops_without_room() -> None:
    data = record(bytes(50_000))
    with wire() as (file, far):
        written, error = send(file, [data] * 1000, True)
        assert 0 < written < 1000
        assert error == 0
        assert [len(far.recv(70_000)) for _ in range(written)] == [len(data) + len(FILLER)] * written


@pytest.mark.parametrize("room", [MAX_WIDE_RECORD - 1, MAX_WIDE_RECORD])
def test_receiving_wide_headers_needs_room_for_the_longest_record(room: int) -> None:
    with wire(wide(record(frame(TCP4)))) as (file, _):
        found = receive(file, memoryview(bytearray(room)), 256, True)
    assert len(found) == (room == MAX_WIDE_RECORD)
