"""Splitting and measuring records in the native core against the reference."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cores import (
    Core,
    assert_same_packets,
    assert_same_records,
    contents,
    copies,
    fault_of_both,
    of_both,
    partial_of,
    property_of,
)
from tests.support.frames import (
    EACH_KIND,
    TCP4,
    UDP4,
    Kind,
    frame,
    frames,
    icmp,
    naive_merge,
    network_size,
    partial,
    record,
)
from tests.support.superpackets import HOSTILE, superpackets
from threepipe.core.superpacket import HEADER_SIZE, PLAIN_HEADER


@property_of(400)
@given(st.lists(HOSTILE, max_size=3))
def test_hostile_records_split_alike(records: list[memoryview]) -> None:
    assert_same_packets(records)
    for udp in (False, True):
        assert_same_records(records, True, udp)


@property_of(300)
@given(st.lists(superpackets(), max_size=3), st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=3))
def test_damaged_superpackets_split_alike(records: list[memoryview], damage: list[tuple[int, int]]) -> None:
    assert_same_packets(records)
    for place, value in damage:
        for view in records[:1]:
            view[place % len(view)] = value
    assert_same_packets(records)


@property_of(300)
@given(st.lists(st.binary(min_size=HEADER_SIZE, max_size=100), max_size=5))
def test_random_records_split_alike(records: list[bytes]) -> None:
    assert_same_packets(records)
    assert_same_records(records, True, True)


@EACH_KIND
def test_truncated_records_split_alike(kind: Kind) -> None:
    packets = frames(kind, [b"abcd", b"efgh", b"ij"], options=b"\1\1\1\1")
    for whole in (naive_merge(kind, packets), bytes(partial(kind, packets[0])), PLAIN_HEADER + packets[0]):
        for size in range(HEADER_SIZE, len(whole) + 1):
            assert_same_packets([whole[:size]])
            assert_same_records([whole[:size], *map(partial_of(kind), packets)], True, True)


@EACH_KIND
@pytest.mark.parametrize("size", [97, 536, 1448, 0xFFFF])
def test_the_longest_superpackets_split_alike(kind: Kind, size: int) -> None:
    headers = network_size(kind) + (20 if kind.protocol == 6 else 8)
    payload = random.Random(size).randbytes(0xFFFF - headers)
    whole = bytearray(naive_merge(kind, [frame(kind, payload)]))
    whole[4:6] = struct.pack("=H", size)
    assert_same_packets([whole])
    assert_same_packets([whole + b"x"])


@EACH_KIND
@pytest.mark.parametrize("size", [0xFFFE, 0xFFFF, 0x10000, 0x10001])
def test_packets_of_about_65535_bytes_split_alike(kind: Kind, size: int) -> None:
    packet = frame(kind) + bytes(size - len(frame(kind)))
    for one in (record(packet), partial(kind, packet)):
        assert_same_packets([one])
        assert_same_records([one, one], True, True)


@EACH_KIND
@pytest.mark.parametrize("words", range(16))
def test_superpackets_with_every_header_length_split_alike(kind: Kind, words: int) -> None:
    whole = bytearray(naive_merge(kind, frames(kind, [b"abcdefghijklmnopqrst"] * 3)))
    for version in (4, 6, 5):
        whole[HEADER_SIZE] = version << 4 | words
        for start in (4 * words, 20, 40):
            whole[6:8] = struct.pack("=H", start)
            assert_same_packets([whole])


def test_a_record_that_is_twice_in_a_bundle_is_completed_once() -> None:
    """Both views are of the same memory: a completed checksum is not completed again."""

    def ask(core: Core) -> object:
        view = copies([partial(UDP4, frame(UDP4))])[0]
        return contents(core.split([view, view, memoryview(view)])), bytes(view)

    of_both(ask)


def test_single_packets_are_views_and_segments_are_copies() -> None:
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


# Arguments that both refuse.


@pytest.mark.parametrize("size", range(HEADER_SIZE))
def test_a_record_without_a_whole_vnet_header_raises(size: int) -> None:
    fault_of_both(lambda core: core.split(copies([bytes(size)])), Exception)
    fault_of_both(lambda core: core.split(copies([b"\1" * size])), Exception)


def test_an_open_checksum_in_read_only_memory_raises_type_error() -> None:
    view = memoryview(bytes(partial(UDP4, frame(UDP4))))
    fault_of_both(lambda core: core.split([view]), TypeError)
    assert of_both(lambda core: core.measure([view])) == (1, len(view) - HEADER_SIZE, True)


def test_a_released_view_raises() -> None:
    view = record(frame(UDP4))
    view.release()
    for ask in (
        lambda core: core.measure([view]),
        lambda core: core.split([view]),
        lambda core: core.coalesce([view], True, True),
        lambda core: core.internet_checksum(view),
    ):
        fault_of_both(ask, ValueError)
