"""Packets whose flow cannot be told, which end all runs, and packets of no flow, which end none."""

import pytest

from tests.support.coalesce_cases import BARRIERS, NO_BARRIERS
from tests.support.coalescing import grouped, of_packets, plain
from tests.support.frames import (
    DONT_FRAGMENT,
    EACH_IPV4,
    EACH_KIND,
    KINDS,
    MORE_FRAGMENTS,
    TCP4,
    Kind,
    frames,
    naive_merge,
)


@EACH_KIND
@pytest.mark.parametrize("barrier", BARRIERS.values(), ids=BARRIERS.keys())
def test_a_packet_that_hides_its_flow_ends_all_runs(kind: Kind, barrier: bytes) -> None:
    packets, others = frames(kind, [b"abcd"] * 4), frames(KINDS[kind == TCP4], [b"abcd"] * 4, ports=(1, 2))
    mixed = [packets[0], others[0], packets[1], others[1], barrier, packets[2], others[2], packets[3], others[3]]
    assert of_packets(mixed) == [
        *(naive_merge(kind, packets[:2]), naive_merge(KINDS[kind == TCP4], others[:2])),
        plain(barrier),
        *(naive_merge(kind, packets[2:]), naive_merge(KINDS[kind == TCP4], others[2:])),
    ]


@EACH_KIND
@pytest.mark.parametrize("between", NO_BARRIERS.values(), ids=NO_BARRIERS.keys())
def test_a_packet_of_no_flow_ends_no_run(kind: Kind, between: bytes) -> None:
    packets = frames(kind, [b"abcd"] * 4)
    mixed = [packets[0], between, between, *packets[1:], between]
    assert of_packets(mixed) == [naive_merge(kind, packets), *[plain(between)] * 3]


@EACH_IPV4
@pytest.mark.parametrize("fragment", [MORE_FRAGMENTS, 1, MORE_FRAGMENTS | 0x1FFF, DONT_FRAGMENT | 0x10])
def test_fragments_of_the_flow_stay_single(kind: Kind, fragment: int) -> None:
    packets = frames(kind, [b"abcd"] * 3, fragment=fragment)
    assert of_packets(packets) == grouped(packets, 1, 1, 1)


@EACH_KIND
def test_packets_with_ip_options_or_extension_headers_stay_single(kind: Kind) -> None:
    middle = bytes([0x94, 4, 0, 0]) if kind.version == 4 else bytes([kind.protocol, 0, 1, 4, 0, 0, 0, 0])
    packets = frames(kind, [b"abcd"] * 3, middle=middle)
    assert of_packets(packets) == grouped(packets, 1, 1, 1)
