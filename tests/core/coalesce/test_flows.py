"""The flows of packets: headers that differ, and flows beside one another."""

from typing import Any

import pytest

from tests.support.coalesce_cases import around_the_third, third
from tests.support.coalescing import grouped, of_packets, plain
from tests.support.frames import (
    DONT_FRAGMENT,
    EACH_KIND,
    EACH_TCP,
    KINDS,
    RESERVED,
    TCP4,
    TCP6,
    UDP4,
    UDP6,
    Kind,
    frame,
    frames,
    icmp,
    naive_merge,
)

OF_ANY: list[dict[str, Any]] = [{"ttl": 63}, {"tos": 3}, {"tos": 0xB8}]
OF_IPV4: list[dict[str, Any]] = [
    {"fragment": 0},
    {"fragment": DONT_FRAGMENT | RESERVED},
    {"fragment": RESERVED},
]
OF_IPV6: list[dict[str, Any]] = [{"label": 0x12344}, {"label": 0x92345}, {"label": 0}]
OF_TCP: list[dict[str, Any]] = [
    *[{"acknowledgment": 77 ^ 1 << bit} for bit in (0, 8, 16, 31)],
    *[{"window": 512 ^ 1 << bit} for bit in (0, 15)],
    *[{"urgent": 1}, {"urgent": 0x8000}],
    *[{"options": options} for options in (bytes(4), bytes([1, 1, 1, 1]))],
]
DIFFERENCES = [
    *[(kind, change) for kind in KINDS for change in OF_ANY],
    *[(kind, change) for kind in (TCP4, UDP4) for change in OF_IPV4],
    *[(kind, change) for kind in (TCP6, UDP6) for change in OF_IPV6],
    *[(kind, change) for kind in (TCP4, TCP6) for change in OF_TCP],
]


@pytest.mark.parametrize(("kind", "change"), DIFFERENCES, ids=str)
def test_a_changed_header_begins_another_run(kind: Kind, change: dict[str, Any]) -> None:
    train = around_the_third(kind)
    train[12] = third(kind, **change)
    assert of_packets(train) == grouped(train, 12, 1, 12)
    packets = frames(kind, [b"abcd"] * 6)
    packets[2:4] = frames(kind, [b"abcd"] * 2, sequence=1008, identification=0x1236, **change)
    assert of_packets(packets) == grouped(packets, 2, 2, 2)
    # A packet that differs stands between packets that could be merged: their order is kept.
    packets[3] = frame(kind, sequence=1012, identification=0x1237)
    assert of_packets(packets) == grouped(packets, 2, 1, 3)


@EACH_TCP
@pytest.mark.parametrize("place", range(4))
def test_a_changed_byte_of_the_tcp_options_begins_another_run(kind: Kind, place: int) -> None:
    options = bytearray([8, 10, 1, 2])
    packets = frames(kind, [b"abcd"] * 2, options=bytes(options))
    options[place] ^= 0x10
    packets[1] = frame(kind, sequence=1004, identification=0x1235, options=bytes(options))
    assert of_packets(packets) == grouped(packets, 1, 1)


@EACH_KIND
@pytest.mark.parametrize(
    "change",
    [
        {"ports": (442, 50000)},
        {"ports": (443, 50001)},
        {"ports": (50000, 443)},
        {"addresses": 0},
        {"addresses": 1},
        {"addresses": 2},
    ],
    ids=str,
)
def test_interleaved_flows_are_merged_each_for_itself(kind: Kind, change: dict[str, Any]) -> None:
    if "addresses" in change:
        ends = [("10.0.0.1", "10.0.0.3"), ("11.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1")]
        if kind.version == 6:
            ends = [("fd00::1", "fd00::3"), ("fe00::1", "fd00::2"), ("fd00::2", "fd00::1")]
        change = {"addresses": ends[change["addresses"]]}
    ours, others = frames(kind, [b"abcd"] * 3), frames(kind, [b"abcd"] * 3, **change)
    mixed = [packet for pair in zip(ours, others, strict=True) for packet in pair]
    assert of_packets(mixed) == [naive_merge(kind, ours), naive_merge(kind, others)]


def test_interleaved_flows_of_every_kind_are_merged() -> None:
    trains = [frames(kind, [b"abcd", b"efgh", b"ij"]) for kind in KINDS]
    mixed = [packet for turn in zip(*trains, strict=True) for packet in turn]
    assert of_packets(mixed) == [naive_merge(kind, train) for kind, train in zip(KINDS, trains, strict=True)]


def test_a_merged_record_takes_the_place_of_its_first_packet() -> None:
    ours, others = frames(TCP4, [b"abcd"] * 4), frames(UDP6, [b"abcd"] * 3)
    mixed = [ours[0], icmp(4), others[0], ours[1], others[1], icmp(6), others[2], ours[2], ours[3]]
    assert of_packets(mixed) == [
        naive_merge(TCP4, ours),
        plain(icmp(4)),
        naive_merge(UDP6, others),
        plain(icmp(6)),
    ]
