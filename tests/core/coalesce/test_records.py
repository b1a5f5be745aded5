"""Superpackets among the records, and the memory of the records returned."""

from itertools import pairwise

import pytest

from tests.support.coalesce_cases import assert_record_alone, third
from tests.support.coalescing import AS_RECORDS, contents, grouped, of_records, plain, views
from tests.support.frames import (
    EACH_KIND,
    KINDS,
    NEEDS_CSUM,
    TCP4,
    Kind,
    frame,
    frames,
    icmp,
    naive_merge,
    network_size,
    opened,
    partial,
    record,
    superpacket,
    with_bits,
)
from threepipe.core.fast import coalesce, measure
from threepipe.core.packet import MAX_PACKET
from threepipe.core.superpacket import HEADER_SIZE

# Superpackets among the records.


@EACH_KIND
def test_superpackets_stay_whole_and_end_their_run(kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 6)
    whole = memoryview(naive_merge(kind, packets[2:4]))
    records = [*map(plain, packets[:2]), bytes(whole), *map(plain, packets[4:])]
    assert of_records(records) == [naive_merge(kind, packets[:2]), bytes(whole), naive_merge(kind, packets[4:])]
    assert of_records([whole, whole]) == contents([whole, whole])
    assert of_records([whole, *map(plain, packets[4:])]) == [bytes(whole), naive_merge(kind, packets[4:])]


@EACH_KIND
def test_superpackets_of_other_flows_end_no_run(kind: Kind) -> None:
    packets, others = frames(kind, [b"abcd"] * 3), frames(kind, [b"abcd"] * 3, ports=(1, 2))
    whole = naive_merge(kind, others)
    records = [plain(packets[0]), whole, plain(packets[1]), whole, plain(packets[2])]
    assert of_records(records) == [naive_merge(kind, packets), whole, whole]


@EACH_KIND
def test_superpackets_with_extension_headers_end_all_runs(kind: Kind) -> None:
    middle = bytes([kind.protocol, 0, 1, 4, 0, 0, 0, 0]) if kind.version == 6 else bytes([0x94, 4, 0, 0])
    whole = superpacket(kind, frame(kind, b"abcdef", middle=middle), 2, start=network_size(kind, middle))
    packets = frames(kind, [b"abcd"] * 4, ports=(1, 2))
    records = [*map(plain, packets[:2]), bytes(whole), *map(plain, packets[2:])]
    assert of_records(records) == [naive_merge(kind, packets[:2]), bytes(whole), naive_merge(kind, packets[2:])]


@EACH_KIND
@pytest.mark.parametrize("fields", [{"gso_type": 0x80}, {"gso_type": 3}, {"gso_type": 0x85}, {"flags": 0}, {"size": 0}])
def test_records_with_contradictory_vnet_headers_stay_as_they_are(kind: Kind, fields: dict[str, int]) -> None:
    right = {
        "flags": NEEDS_CSUM,
        "gso_type": kind.gso_type,
        "size": 2,
        "start": network_size(kind),
        "field": kind.field,
    }
    wrong = record(opened(third(kind), network_size(kind), kind), **right | fields)
    assert_record_alone(wrong, kind)


# Memory.


@EACH_KIND
@AS_RECORDS
def test_the_input_is_unchanged_and_merged_records_are_copies(kind: Kind, as_records: bool) -> None:
    packets = [*frames(kind, [b"abcd"] * 3), icmp(4), *frames(kind, [b"abcd"] * 2, ports=(1, 2)), icmp(6)]
    pieces = [bytearray(plain(packet) if as_records else packet) for packet in packets]
    before = [bytes(piece) for piece in pieces]
    merged = grouped([*packets[:3], *packets[3:]], 3, 1, 2, 1)
    found = coalesce([memoryview(piece) for piece in pieces], as_records, True)
    assert [bytes(piece) for piece in pieces] == before
    new = [view for view, expected in zip(found, merged, strict=True) if not as_records or expected[1]]
    assert len(new) == (2 if as_records else 4)
    for view in new:  # Merged records have memory of their own.
        kept = contents(found)
        view[:] = bytes(len(view))
        kept[found.index(view)] = bytes(len(view))
        assert contents(found) == kept
    assert [bytes(piece) for piece in pieces] == before


def test_merged_records_outlive_the_packets() -> None:
    packets = [*frames(TCP4, [b"abcd"] * 3), icmp(4)]
    pieces = [bytearray(packet) for packet in packets]
    found = coalesce([memoryview(piece) for piece in pieces], False, True)
    for piece in pieces:
        piece.clear()  # A bytearray that a result viewed would refuse this.
    assert contents(found) == grouped(packets, 3, 1)


def test_a_single_record_is_returned_without_a_copy() -> None:
    memory = bytearray(plain(frame(TCP4)))
    (found,) = coalesce([memoryview(memory)], True, True)
    memory[-1] ^= 0xFF
    assert bytes(found) == bytes(memory)


@AS_RECORDS
def test_views_of_one_arena_are_merged(as_records: bool) -> None:
    """`receive` returns such views: writable, one after the other in one buffer."""
    packets = frames(TCP4, [b"abcd"] * 8)
    pieces = [plain(packet) if as_records else packet for packet in packets]
    arena = memoryview(bytearray(b"".join(pieces)))
    ends = [len(pieces[0]) * index for index in range(9)]
    found = coalesce([arena[start:end] for start, end in pairwise(ends)], as_records, True)
    assert contents(found) == [naive_merge(TCP4, packets)]


# Sizes of many records, which an implementation may measure all at once.


@pytest.mark.parametrize("place", [0, 5, 11])
@pytest.mark.parametrize("kind", KINDS, ids=["tcp4", "tcp6", "udp4", "udp6"])
def test_many_records_measure_as_the_sum_of_each(kind: Kind, place: int) -> None:
    packet = frame(kind)
    whole = naive_merge(kind, frames(kind, [b"abcd"] * 3))
    far = {"flags": NEEDS_CSUM, "start": len(packet) - 10, "field": 8}
    for usual in (plain(packet), bytes(partial(kind, packet)), whole, bytes(record(packet, **far))):
        for other in (
            *(usual, plain(packet), whole, usual[:HEADER_SIZE], usual[:-1], usual + b"x"),
            *(usual[: HEADER_SIZE + size] for size in (19, 20, 39, 40)),
            *(usual.ljust(HEADER_SIZE + size, b"x") for size in (MAX_PACKET, MAX_PACKET + 1)),
            *(with_bits(usual, offset, bits) for offset in range(HEADER_SIZE + 1) for bits in (1, 0x10, 0x20, 0x40)),
        ):
            records = [*[usual] * place, other, *[usual] * (11 - place)]
            each = [measure(views([piece])) for piece in records]
            expected = sum(one for one, _, _ in each), sum(one for _, one, _ in each), all(one for *_, one in each)
            assert measure(views(records)) == expected
            assert measure(views([other] * 12)) == (each[place][0] * 12, each[place][1] * 12, each[place][2])
