"""Coalescing packets in the native core against the reference."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cores import (
    NATIVE,
    SOURCES,
    Core,
    assert_same_packets,
    assert_same_records,
    contents,
    copies,
    of_both,
    property_of,
)
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
    naive_merge,
    network_size,
    opened,
    partial,
    record,
    records_of,
    summing_to_zero,
    traffic,
    with_bits,
    with_field,
)
from tests.support.rfc1071 import naive_checksum
from threepipe.core.superpacket import HEADER_SIZE, PLAIN_HEADER


@property_of(150)
@given(SOURCES, st.integers(0, 16), st.booleans(), st.booleans())
def test_random_traffic_is_coalesced_alike(source: random.Random, count: int, as_records: bool, udp: bool) -> None:
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
def test_hostile_packets_are_coalesced_alike(pieces: list[bytes], udp: bool) -> None:
    assert_same_records(pieces, False, udp)
    assert_same_records([PLAIN_HEADER + piece for piece in pieces], True, udp)


@property_of(500)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(1, 255)), max_size=4),
    st.booleans(),
)
def test_damaged_trains_are_coalesced_alike(kind: Kind, damage: list[tuple[int, int, int]], left_open: bool) -> None:
    packets = frames(kind, [b"abcd", b"efgh", b"ijkl", b"mn"], options=b"\1\1\1\1")
    pieces = [bytes(partial(kind, packet)) if left_open else PLAIN_HEADER + packet for packet in packets]
    for which, place, bits in damage:
        pieces[which] = with_bits(pieces[which], place % len(pieces[which]), bits)
    assert_same_records(pieces, True, True)
    assert_same_packets(pieces)


@EACH_KIND
@pytest.mark.parametrize("bit", range(8))
def test_trains_with_each_header_bit_flipped_are_coalesced_alike(kind: Kind, bit: int) -> None:
    """One packet of five has the flipped bit: with its old and with new checksums, complete and open."""
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
def test_bursts_with_each_record_bit_flipped_are_coalesced_alike(kind: Kind, bit: int) -> None:
    """The bursts are long, and their checksums are open."""
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
def test_checksums_of_zero_and_ffff_are_coalesced_alike(kind: Kind, place: int, value: int) -> None:
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
@pytest.mark.parametrize("place", range(4))
def test_datagrams_without_a_checksum_are_coalesced_alike(kind: Kind, place: int) -> None:
    start = network_size(kind)
    packets = frames(kind, [b"abcdef"] * 12)
    without = [with_field(packet, start + kind.field, 0) for packet in packets]
    for train in (without, [*without[:place], packets[place], *without[place + 1 :]]):
        assert_same_records(train, False, True)
        assert_same_records([partial(kind, packet) for packet in train], True, True)
    for bit in range(8):
        for offset in range(start + 8):
            changed = with_bits(without[place], offset, 1 << bit)
            assert_same_records([*without[:place], changed, *without[place + 1 :]], False, True)


@EACH_KIND
@pytest.mark.parametrize("bit", range(8))
def test_overlays_with_each_bit_of_their_headers_flipped_are_coalesced_alike(kind: Kind, bit: int) -> None:
    inside = frames(kind, [b"abcdef"] * 24)
    data, start = network_size(UDP4) + 8 + 22, network_size(kind)
    records = [
        bytes(record(whole[:data] + opened(packet, start, kind), flags=1, start=data + start, field=kind.field))
        for whole, packet in zip(frames(UDP4, [bytes(22) + packet for packet in inside]), inside, strict=True)
    ]
    assert_same_records(records, True, True)
    for place in range(HEADER_SIZE + data + start + 8):
        changed = with_bits(records[12], place, 1 << bit)
        assert_same_records([*records[:12], changed, *records[13:]], True, True)
        assert_same_records([changed, *records[13:]], True, True)


@EACH_KIND
@pytest.mark.parametrize("excess", [0, 1])
def test_the_longest_trains_are_coalesced_alike(kind: Kind, excess: int) -> None:
    headers = network_size(kind) + (20 if kind.protocol == 6 else 8)
    packets = frames(kind, [*[b"x" * 1400] * 46, b"y" * ((0xFFFF - headers) % 1400 + excess), *[b"x" * 1400] * 3])
    assert_same_records(packets, False, True)
    assert_same_records([partial(kind, packet) for packet in packets], True, True)


@EACH_KIND
@pytest.mark.parametrize("left_open", [False, True])
def test_trains_of_63_to_140_packets_are_coalesced_alike(kind: Kind, left_open: bool) -> None:
    for fragment, size in [(0, 1), (DONT_FRAGMENT, 1), (0, 1000), (DONT_FRAGMENT, 1000)]:
        packets = frames(kind, [bytes(size)] * 140, fragment=fragment, identification=0xFFC0)
        pieces = [partial(kind, packet) if left_open else record(packet) for packet in packets]
        for number in (63, 64, 65, 66, 67, 128, 129, 140):
            assert_same_records(pieces[:number], True, True)
            assert_same_packets(pieces[:number])
        assert_same_records([*pieces[:20], record(icmp(6)), *pieces[20:]], True, True)


@EACH_KIND
def test_equal_records_with_one_that_differs_are_split_alike(kind: Kind) -> None:
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


def test_a_thousand_flows_are_coalesced_alike() -> None:
    """The flows, each with a train of its own, are so many that a table of flows may have to grow."""
    trains = [frames(KINDS[port % 4], [b"abcd"] * 3, ports=(port // 4, 7)) for port in range(1000)]
    mixed = [packet for turn in zip(*trains, strict=True) for packet in turn]
    assert_same_records(mixed, False, True)
    assert len(NATIVE.coalesce(copies(mixed), False, True)) == 1000


def test_merged_records_are_copies_and_single_ones_are_not() -> None:
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
