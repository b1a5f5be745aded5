"""Packets in datagrams, as in VXLAN: their checksums are open while the datagram's own is complete, or absent."""

import pytest

from tests.support.coalescing import contents, grouped, of_records, plain, views
from tests.support.frames import (
    EACH_KIND,
    NEEDS_CSUM,
    TCP4,
    UDP4,
    UDP6,
    Kind,
    frames,
    network_size,
    opened,
    partial,
    record,
    with_bits,
    with_field,
)
from threepipe.core.fast import split
from threepipe.core.superpacket import HEADER_SIZE

EACH_UDP_OUTSIDE = pytest.mark.parametrize("outer", [UDP4, UDP6], ids=["over-udp4", "over-udp6"])
VXLAN = 8 + 14  # Bytes of the headers of VXLAN and Ethernet.


def overlay(
    outer: Kind, inner: Kind, checksum: bool = True, header: int = VXLAN, count: int = 5
) -> tuple[list[bytes], list[bytes]]:
    """Return complete packets of an overlay, and the records in which their inner checksums are open."""
    inside = frames(inner, [bytes([number]) * 60 for number in range(count)])
    outside = frames(outer, [bytes(header) + packet for packet in inside])
    data = network_size(outer) + 8 + header
    if not checksum:
        outside = [with_field(packet, network_size(outer) + 6, 0) for packet in outside]
    records = [
        bytes(
            record(
                whole[:data] + opened(packet, network_size(inner), inner),
                flags=NEEDS_CSUM,
                start=data + network_size(inner),
                field=inner.field,
            )
        )
        for whole, packet in zip(outside, inside, strict=True)
    ]
    return outside, records


@EACH_KIND
@EACH_UDP_OUTSIDE
def test_datagrams_with_an_open_checksum_inside_are_merged(outer: Kind, kind: Kind) -> None:
    packets, records = overlay(outer, kind)
    merged = of_records(records)
    assert merged == grouped(packets, 5)
    assert contents(split(views(merged))) == packets
    assert of_records([*records[:3], *map(plain, packets[3:])]) == merged


@EACH_KIND
@EACH_UDP_OUTSIDE
@pytest.mark.parametrize("count", [5, 30])
@pytest.mark.parametrize("own", [{0}, {2}, {4}, {1, 2}, {0, 1, 3}])
def test_datagrams_whose_own_checksum_is_open_are_merged_with_them(
    outer: Kind, kind: Kind, own: set[int], count: int
) -> None:
    packets, records = overlay(outer, kind, count=count)
    for index in own:
        records[index] = bytes(partial(outer, packets[index]))
    assert of_records(records) == grouped(packets, count)


@EACH_KIND
def test_the_same_without_a_checksum_outside_are_merged_over_ipv4_only(kind: Kind) -> None:
    packets, records = overlay(UDP4, kind, checksum=False)
    assert of_records(records) == grouped(packets, 5)
    _, records = overlay(UDP6, kind, checksum=False)
    assert of_records(records) == records


@EACH_UDP_OUTSIDE
def test_a_datagram_alone_keeps_its_open_checksum(outer: Kind) -> None:
    _, records = overlay(outer, TCP4)
    assert of_records(records[:1]) == records[:1]


@EACH_UDP_OUTSIDE
@pytest.mark.parametrize("place", [6, 7, 8, 20])
def test_a_wrong_datagram_stays_single(outer: Kind, place: int) -> None:
    packets, records = overlay(outer, TCP4)
    records[2] = with_bits(records[2], HEADER_SIZE + network_size(outer) + place, 1)
    expected = grouped(packets, 2, 1, 2)
    expected[1] = records[2]
    assert of_records(records) == expected


@EACH_UDP_OUTSIDE
def test_an_inner_checksum_of_other_words_than_the_outer_stays_open(outer: Kind) -> None:
    _, records = overlay(outer, TCP4, header=VXLAN + 1)
    assert of_records(records) == records


@EACH_UDP_OUTSIDE
@pytest.mark.parametrize("start", [20, 26, 27, 0xFFFE])
def test_an_open_checksum_elsewhere_stays_single(outer: Kind, start: int) -> None:
    packets, _ = overlay(outer, TCP4)
    records = [bytes(record(packet, flags=NEEDS_CSUM, start=start, field=1)) for packet in packets]
    assert of_records(records) == records


@EACH_KIND
@EACH_UDP_OUTSIDE
def test_a_long_train_with_open_checksums_inside_is_merged(outer: Kind, kind: Kind) -> None:
    packets, records = overlay(outer, kind, count=30)
    assert of_records(records) == grouped(packets, 30)
    for wrong in (2, 12, 29):
        changed = list(records)
        place = HEADER_SIZE + network_size(outer) + 8 + 3  # A bit of the outer payload, before the inner packet.
        changed[wrong] = with_bits(records[wrong], place, 1)
        expected = grouped(packets, *[size for size in (wrong, 1, 29 - wrong) if size])
        expected[1] = changed[wrong]  # Alone, it stays open.
        assert of_records(changed) == expected
