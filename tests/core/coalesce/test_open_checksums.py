"""Records whose checksum was left to be completed."""

import pytest

from tests.support.coalesce_cases import assert_record_alone, third
from tests.support.coalescing import of_records, plain
from tests.support.frames import (
    EACH_IPV4,
    EACH_KIND,
    NEEDS_CSUM,
    Kind,
    frames,
    naive_merge,
    network_size,
    opened,
    partial,
    record,
    with_bits,
)
from threepipe.core.superpacket import HEADER_SIZE


@EACH_KIND
def test_records_with_open_checksums_are_merged(kind: Kind) -> None:
    packets = frames(kind, [b"abcd", b"efgh", b"ij"])
    assert of_records([partial(kind, packet) for packet in packets]) == [naive_merge(kind, packets)]


@EACH_KIND
@pytest.mark.parametrize("which", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 2}])
def test_records_with_open_and_complete_checksums_are_merged(kind: Kind, which: set[int]) -> None:
    packets = frames(kind, [b"abcd", b"efgh", b"ij"])
    records = [partial(kind, packet) if index in which else plain(packet) for index, packet in enumerate(packets)]
    assert of_records(records) == [naive_merge(kind, packets)]


@EACH_KIND
@pytest.mark.parametrize("change", [1, -1, 0x100])
def test_a_wrong_sum_of_the_pseudo_header_stays_single(kind: Kind, change: int) -> None:
    wrong = partial(kind, third(kind))
    place = HEADER_SIZE + network_size(kind) + kind.field
    value = int.from_bytes(wrong[place : place + 2], "big") + change
    wrong[place : place + 2] = (value % 0x10000).to_bytes(2, "big")
    assert_record_alone(wrong, kind)


@EACH_KIND
def test_a_complete_checksum_in_a_record_marked_open_stays_single(kind: Kind) -> None:
    start = network_size(kind)
    assert_record_alone(record(third(kind), flags=NEEDS_CSUM, start=start, field=kind.field), kind)


@EACH_KIND
@pytest.mark.parametrize(
    "change", [{"start": 1}, {"start": -2, "field": 2}, {"field": 1}, {"field": -10}, {"start": 20}]
)
def test_an_open_checksum_in_another_place_stays_single(kind: Kind, change: dict[str, int]) -> None:
    packet = opened(third(kind), start := network_size(kind), kind)
    field = (kind.field + change.get("field", 0)) % 22
    assert_record_alone(record(packet, flags=NEEDS_CSUM, start=start + change.get("start", 0), field=field), kind)


@EACH_KIND
@pytest.mark.parametrize("change", [-1, 1, 4])
def test_an_open_checksum_with_wrong_lengths_stays_single(kind: Kind, change: int) -> None:
    right = bytes(partial(kind, third(kind)))
    assert_record_alone(memoryview(bytearray(right[:change] if change < 0 else right + bytes(change))), kind)


@EACH_IPV4
def test_an_open_checksum_with_a_wrong_ipv4_header_checksum_stays_single(kind: Kind) -> None:
    assert_record_alone(partial(kind, with_bits(third(kind), 11, 1)), kind)


@EACH_KIND
def test_fields_of_the_vnet_header_without_meaning_are_ignored(kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 4)
    records = [
        record(packets[0], hdr_len=9, size=9, start=9, field=9),
        record(packets[1], flags=2, hdr_len=0xFFFF),
        record(
            bytes(partial(kind, packets[2])[HEADER_SIZE:]),
            flags=0xFF,
            start=network_size(kind),
            field=kind.field,
            size=3,
        ),
        record(packets[3], flags=0xFE, start=9),
    ]
    assert of_records(records) == [naive_merge(kind, packets)]
    damaged = [*records[:3], record(with_bits(packets[3], len(packets[3]) - 1, 1), flags=2)]
    assert of_records(damaged) == [naive_merge(kind, packets[:3]), bytes(damaged[3])]
