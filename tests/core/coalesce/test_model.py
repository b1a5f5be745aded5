"""Traffic, hostile and damaged packets, merged as the naive model merges them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.coalesce_model import assert_as_the_model
from tests.support.coalescing import plain, property_of
from tests.support.frames import (
    DONT_FRAGMENT,
    KINDS,
    TCP4,
    UDP4,
    UDP6,
    Kind,
    frames,
    partial,
    records_of,
    traffic,
    with_bits,
)
from threepipe.core.superpacket import HEADER_SIZE

SOURCES = st.randoms(use_true_random=False)


@property_of(150)
@given(SOURCES, st.integers(0, 12), st.booleans())
def test_random_traffic_is_merged_as_by_the_model(source: random.Random, count: int, udp: bool) -> None:
    assert_as_the_model(traffic(source, count), False, udp)


@property_of(150)
@given(SOURCES, st.integers(0, 12), st.booleans())
def test_random_records_are_merged_as_by_the_model(source: random.Random, count: int, udp: bool) -> None:
    assert_as_the_model(records_of(source, traffic(source, count)), True, udp)


@pytest.mark.parametrize("seed", range(40))
def test_long_traffic_is_merged_as_by_the_model(seed: int) -> None:
    source = random.Random(seed)
    packets = traffic(source, 80)
    merged = assert_as_the_model(packets, False, True)
    assert_as_the_model(records_of(source, packets), True, source.random() < 0.9)
    assert len(merged) < len(packets)


@property_of(300)
@given(
    st.lists(
        st.builds(
            lambda first, rest: first + rest,
            st.sampled_from([b"", b"\x45", b"\x60", b"\x45\0\0\x28\0\0\0\0\x40\x06", b"\x60\0\0\0\0\x14\x06\x40"]),
            st.binary(max_size=80) | st.sampled_from([bytes(80), b"\xff" * 80, b"\x50\x10" * 40]),
        ),
        max_size=6,
    ),
    st.booleans(),
    st.booleans(),
)
def test_hostile_packets_are_merged_as_by_the_model(pieces: list[bytes], as_records: bool, udp: bool) -> None:
    assert_as_the_model([plain(piece) for piece in pieces] if as_records else pieces, as_records, udp)


@property_of(300)
@given(st.lists(st.binary(min_size=HEADER_SIZE, max_size=120), max_size=4))
def test_hostile_records_are_merged_as_by_the_model(pieces: list[bytes]) -> None:
    assert_as_the_model(pieces, True, True)


@property_of(150)
@given(
    st.sampled_from([UDP4, UDP6, TCP4]),
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 80), st.integers(1, 255)), max_size=2),
    st.sampled_from([0, DONT_FRAGMENT]),
    st.sampled_from([0x1234, 0xFFF8]),
)
def test_damaged_bursts_are_merged_as_by_the_model(
    kind: Kind, damage: list[tuple[int, int, int]], fragment: int, first: int
) -> None:
    packets = frames(kind, [b"abcd"] * 16, fragment=fragment, identification=first)
    pieces = [bytes(partial(kind, packet)) for packet in packets]
    for which, place, bits in damage:
        pieces[which] = with_bits(pieces[which], place % len(pieces[which]), bits)
    assert_as_the_model(pieces, True, True)


@property_of(300)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(1, 255)), max_size=4),
    st.booleans(),
)
def test_damaged_trains_are_merged_as_by_the_model(
    kind: Kind, damage: list[tuple[int, int, int]], as_records: bool
) -> None:
    packets = frames(kind, [b"abcd", b"efgh", b"ijkl", b"mn"], options=bytes(4))
    pieces = [plain(packet) if as_records else packet for packet in packets]
    for which, place, bits in damage:
        pieces[which] = with_bits(pieces[which], place % len(pieces[which]), bits)
    assert_as_the_model(pieces, as_records, True)
