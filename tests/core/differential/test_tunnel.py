"""Wide headers and tunnel superpackets in the native core against the reference."""

import random
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cores import SOURCES, Core, contents, copies, of_both, property_of
from tests.support.frames import records_of, traffic
from tests.support.superpackets import HOSTILE, superpackets
from tests.support.tunnels import SHAPES, Shape, tunnelled, wide, wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such pairs of sockets")

OFFSETS = st.sampled_from([20, 28, 40, 48, 50, 70]) | st.integers(0, 0xFFFF)
PLACES = st.lists(st.tuples(st.integers(0, 130), st.integers(0, 255)), max_size=3)


def assert_same_records_received(records: Sequence[bytes | bytearray]) -> None:
    def ask(core: Core) -> object:
        with wire(*records) as (file, _):
            found = core.receive(file, memoryview(bytearray(1 << 20)), 256, True)
        told = [contents(found), core.measure(found), contents(core.split(found))]
        with wire(*records) as (file, _):
            return [*told, core.receive_packets(file, memoryview(bytearray(1 << 20)), 256, True, True)]

    of_both(ask)


@property_of(300)
@given(st.lists(st.tuples(HOSTILE | superpackets(), OFFSETS, OFFSETS), min_size=1, max_size=3), st.integers(0, 3))
def test_hostile_records_with_wide_headers_are_received_alike(
    made: list[tuple[memoryview, int, int]], tunnel: int
) -> None:
    records = [bytearray(wide(data, transport, inner)) for data, transport, inner in made]
    for data in records:
        data[1] |= tunnel << 5
    assert_same_records_received(records)


@property_of(300)
@given(st.sampled_from(SHAPES), st.integers(1, 3000), st.integers(1, 1500), st.binary(max_size=30), PLACES)
def test_damaged_tunnel_superpackets_are_received_alike(
    shape: Shape, length: int, size: int, prefix: bytes, damage: list[tuple[int, int]]
) -> None:
    data = bytearray(tunnelled(shape, bytes(length), size, prefix).record)
    assert_same_records_received([data])
    for place, value in damage:
        data[place % len(data)] = value
    assert_same_records_received([data])


@property_of(100)
@given(SOURCES)
def test_traffic_is_sent_alike_with_wide_headers(choose: random.Random) -> None:
    packets = traffic(choose, 40)
    records = records_of(choose, packets)

    def ask(core: Core) -> list[Any]:
        told: list[Any] = []
        for pieces, vnet_header in ((packets, False), (records, True)):
            with wire() as (file, far):
                rest, written, error = core.send_coalesced(file, copies(pieces), vnet_header, True, True)
                told.append((contents(rest), error, [far.recv(70_000) for _ in range(written)]))
        with wire() as (file, far):
            written, error = core.send(file, copies(records), True)
            told.append((error, [far.recv(70_000) for _ in range(written)]))
        return told

    *_, (_, alone) = of_both(ask)
    assert alone == [wide(record) for record in records]
