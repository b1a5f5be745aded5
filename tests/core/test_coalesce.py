"""Coalescing against hand-made vectors, rule for rule; a naive model that asks the naive splitter; hostile packets."""

import random
import socket
import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.frames import (
    ACK,
    CWR,
    DONT_FRAGMENT,
    EACH_IPV4,
    EACH_KIND,
    EACH_TCP,
    EACH_UDP,
    ECE,
    FIN,
    KINDS,
    MORE_FRAGMENTS,
    NEEDS_CSUM,
    PSH,
    RESERVED,
    RST,
    SYN,
    TCP4,
    TCP6,
    UDP4,
    UDP6,
    URG,
    Kind,
    completed,
    frame,
    frames,
    header_size,
    header_summing_to_zero,
    icmp,
    kind_of,
    naive_merge,
    naive_split,
    network_size,
    opened,
    partial,
    record,
    records_of,
    summing_to_zero,
    superpacket,
    traffic,
    with_bits,
    with_field,
)
from tests.support.rfc1071 import naive_checksum
from threepipe.core.fast import coalesce, measure, split
from threepipe.core.packet import MAX_PACKET
from threepipe.core.superpacket import HEADER_SIZE, MAX_RECORD, PLAIN_HEADER

AS_RECORDS = pytest.mark.parametrize("as_records", [False, True], ids=["packets", "records"])


def property_of(examples: int) -> settings:
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(derandomize=True, deadline=None, max_examples=examples, suppress_health_check=quiet)


def views(pieces: Iterable[bytes | memoryview]) -> list[memoryview]:
    return [memoryview(bytes(piece)) for piece in pieces]


def contents(pieces: Iterable[memoryview]) -> list[bytes]:
    return [bytes(piece) for piece in pieces]


def plain(packet: bytes) -> bytes:
    return PLAIN_HEADER + packet


def as_left_open(packet: bytes) -> bytes:
    """A record of the packet, with its checksum left to be completed where it is right."""
    kind = kind_of(packet)
    if kind and len(packet) >= network_size(kind) + kind.field + 2 and completed_again(kind, packet) == packet:
        return bytes(partial(kind, packet))
    return plain(packet)


def completed_again(kind: Kind, packet: bytes) -> bytes:
    return completed(packet, network_size(kind), kind)


def of_packets(packets: Sequence[bytes], udp: bool = True) -> list[bytes]:
    """What becomes of complete packets: the same as of records of them, and as where checksums were left open."""
    found = contents(coalesce(views(packets), False, udp))
    assert contents(coalesce(views(map(plain, packets)), True, udp)) == found
    left_open = contents(coalesce(views(map(as_left_open, packets)), True, udp))
    assert left_open == [view if any(view[:HEADER_SIZE]) else as_left_open(view[HEADER_SIZE:]) for view in found]
    return found


def of_records(records: Iterable[bytes | memoryview], udp: bool = True) -> list[bytes]:
    return contents(coalesce(views(records), True, udp))


def grouped(packets: Sequence[bytes], *sizes: int) -> list[bytes]:
    """The records of the packets, where as many as each of `sizes` says are one."""
    found, rest = [], list(packets)
    for size in sizes:
        group, rest = rest[:size], rest[size:]
        kind = kind_of(group[0])
        found.append(naive_merge(kind, group) if kind and size > 1 else plain(group[0]))
    assert not rest
    return found


# Vectors: complete packets on one side, the whole record on the other.


def header(gso_type: int, hdr_len: int, size: int, start: int, field: int) -> bytes:
    return struct.pack("=BBHHHH", NEEDS_CSUM, gso_type, hdr_len, size, start, field)


@AS_RECORDS
@pytest.mark.parametrize(
    ("parts", "whole", "fields"),
    [
        # Identification and sequence number start again at 0; PSH comes from the last. The pseudo-header's sum
        # is 0a00 + 0001 + 0a00 + 0002 + 0006 + 001b (7 bytes behind 20 of TCP) = 1424.
        (
            [
                "4500002b ffff0000 400666cb 0a000001 0a000002 01bbc350 fffffffe 0000004d 5010 0200 1015 0000 616263",
                "4500002b 00000000 400666cb 0a000001 0a000002 01bbc350 00000001 0000004d 5010 0200 0a10 0000 646566",
                "45000029 00010000 400666cc 0a000001 0a000002 01bbc350 00000004 0000004d 5018 0200 6d6c 0000 67",
            ],
            "4500002f ffff0000 400666c7 0a000001 0a000002 01bbc350 fffffffe 0000004d 5018 0200 1424 000061626364656667",
            (1, 40, 3, 20, 16),
        ),
        # Timestamps are options: 12 bytes, so that TCP has 32. fd00 + 0001 + fd00 + 0002 + 0006 + 0025 = 1fa2e = fa2f.
        (
            [
                "6ab12345 0023 06ff fd000000000000000000000000000001 fd000000000000000000000000000002"
                "01bbc350 00000010 0000004d 8010 0200 df95 0000 0101080a1122334455667788 616263",
                "6ab12345 0022 06ff fd000000000000000000000000000001 fd000000000000000000000000000002"
                "01bbc350 00000013 0000004d 8010 0200 3f91 0000 0101080a1122334455667788 6465",
            ],
            "6ab12345 0025 06ff fd000000000000000000000000000001 fd000000000000000000000000000002"
            "01bbc350 00000010 0000004d 8010 0200 fa2f 0000 0101080a1122334455667788 6162636465",
            (4, 72, 3, 40, 16),
        ),
        # Nothing may be fragmented, and identifications mean nothing: the first one's is kept.
        (
            [
                "4502001e 77774000 4011af53 0a000001 0a000002 01bbc350 000a c569 6162",
                "4502001e 00004000 401126cb 0a000001 0a000002 01bbc350 000a c367 6364",
                "4502001e 00014000 401126ca 0a000001 0a000002 01bbc350 000a c165 6566",
            ],
            "45020022 77774000 4011af4f 0a000001 0a000002 01bbc350 000e 1422 616263646566",
            (5, 28, 2, 20, 6),
        ),
        # The second checksum would be 0, for which UDP has ffff.
        (
            [
                "60000000 000c 1140 fd000000000000000000000000000001 fd000000000000000000000000000002"
                "01bbc350 000c 40c6 00000000",
                "60000000 000b 1140 fd000000000000000000000000000001 fd000000000000000000000000000002"
                "01bbc350 000b ffff 40c800",
            ],
            "60000000 000f 1140 fd000000000000000000000000000001 fd000000000000000000000000000002"
            "01bbc350 000f fa24 0000000040c800",
            (5, 48, 4, 40, 6),
        ),
    ],
    ids=["tcp4", "tcp6", "udp4", "udp6"],
)
def test_by_hand(parts: list[str], whole: str, fields: tuple[int, int, int, int, int], as_records: bool) -> None:
    packets = [bytes.fromhex(part) for part in parts]
    pieces = views(map(plain, packets) if as_records else packets)
    assert contents(coalesce(pieces, as_records, True)) == [header(*fields) + bytes.fromhex(whole)]


@EACH_KIND
def test_a_train_becomes_one_record(kind: Kind) -> None:
    packets = frames(kind, [b"0123", b"4567", b"89ab", b"cd"], tos=0xB9, ttl=7, label=0xFEDCB)
    (whole,) = of_packets(packets)
    assert whole == naive_merge(kind, packets)
    start = network_size(kind)
    payload = start + (20 if kind.protocol == 6 else 8)
    assert struct.unpack_from("=BBHHHH", whole) == (NEEDS_CSUM, kind.gso_type, payload, 4, start, kind.field)
    # The packet is what the far end would have made of all the payload in one, with its checksum left open.
    assert whole[HEADER_SIZE:] == opened(
        frame(kind, b"0123456789abcd", tos=0xB9, ttl=7, label=0xFEDCB), network_size(kind), kind
    )


@EACH_TCP
@pytest.mark.parametrize("options", [b"", bytes([1, 1, 1, 1]), bytes(range(40))], ids=len)
def test_tcp_options_are_kept(kind: Kind, options: bytes) -> None:
    packets = frames(kind, [b"abc", b"def"], options=options, urgent=9, sequence=0)
    (whole,) = of_packets(packets)
    assert whole == naive_merge(kind, packets)
    assert struct.unpack_from("=2xH", whole) == (network_size(kind) + 20 + len(options),)


def test_nothing_becomes_nothing() -> None:
    assert of_packets([]) == []


@EACH_KIND
def test_a_single_packet_stays_as_it_is(kind: Kind) -> None:
    assert of_packets([packet := frame(kind)]) == [plain(packet)]
    assert of_records([partial(kind, packet)]) == [bytes(partial(kind, packet))]
    assert of_records([superpacket(kind, packet, 2)]) == [bytes(superpacket(kind, packet, 2))]


# Without UDP.


@EACH_UDP
def test_udp_stays_apart_where_the_kernel_takes_none_of_it(kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 3)
    assert of_packets(packets, udp=False) == grouped(packets, 1, 1, 1)
    records = [partial(kind, packet) for packet in packets]
    assert of_records(records, udp=False) == contents(records)


@EACH_TCP
def test_tcp_is_merged_without_udp(kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 3)
    assert of_packets(packets, udp=False) == grouped(packets, 3)
    others = frames(UDP4, [b"abcd"] * 2)
    mixed = [packets[0], others[0], packets[1], others[1], packets[2]]
    assert of_packets(mixed, udp=False) == [naive_merge(kind, packets), plain(others[0]), plain(others[1])]


# What ends a run: PSH, size, and what differs.


@EACH_TCP
def test_psh_ends_a_run(kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 5)
    packets[1] = frame(kind, sequence=1004, identification=0x1235, flags=ACK | PSH)
    packets[2] = frame(kind, sequence=1008, identification=0x1236, flags=ACK | PSH)
    assert of_packets(packets) == grouped(packets, 2, 1, 2)
    flags = HEADER_SIZE + network_size(kind) + 13
    assert [found[flags] for found in of_packets(packets)] == [ACK | PSH, ACK | PSH, ACK]


@EACH_KIND
def test_a_short_segment_is_the_last(kind: Kind) -> None:
    packets = frames(kind, [b"abcd", b"abcd", b"a", b"a", b"a", b"a"])
    assert of_packets(packets) == grouped(packets, 3, 3)
    packets = frames(kind, [b"abcd", b"abc", b"abcd", b"abcd"])
    assert of_packets(packets) == grouped(packets, 2, 2)
    packets = frames(kind, [b"abcd", b"a", b"b", b""])
    assert of_packets(packets) == grouped(packets, 2, 1, 1)


@EACH_KIND
def test_a_longer_segment_begins_a_run(kind: Kind) -> None:
    packets = frames(kind, [b"abcd", b"abcd", b"abcde", b"abcde", b"ab"])
    assert of_packets(packets) == grouped(packets, 2, 3)
    packets = frames(kind, [b"a", b"ab", b"abc", b"abcd"])
    assert of_packets(packets) == grouped(packets, 1, 1, 1, 1)


@EACH_KIND
def test_empty_segments_stay_apart(kind: Kind) -> None:
    packets = frames(kind, [b"", b"", b"abcd", b"abcd", b"", b"abcd", b"abcd", b""])
    assert of_packets(packets) == grouped(packets, 1, 1, 2, 1, 2, 1)


@EACH_KIND
@pytest.mark.parametrize("excess", [0, 1])
def test_65535_bytes_and_no_more(kind: Kind, excess: int) -> None:
    headers = network_size(kind) + (20 if kind.protocol == 6 else 8)
    last = (MAX_PACKET - headers) % 1400 + excess
    packets = frames(kind, [*[bytes([index]) * 1400 for index in range(46)], b"z" * last])
    if excess:
        assert of_packets(packets) == grouped(packets, 46, 1)
    else:
        (whole,) = of_packets(packets)
        assert len(whole) == MAX_RECORD
        assert whole == naive_merge(kind, packets)


@EACH_KIND
def test_what_is_too_much_for_one_superpacket_begins_another(kind: Kind) -> None:
    packets = frames(kind, [b"x" * 20_000] * 8)
    assert of_packets(packets) == grouped(packets, 3, 3, 2)
    packets = frames(kind, [b"x" * 1400] * 60)
    assert of_packets(packets) == grouped(packets, 46, 14)


@EACH_TCP
def test_segments_of_tcp_may_be_many(kind: Kind) -> None:
    packets = frames(kind, [b"x"] * 300)
    assert of_packets(packets) == grouped(packets, 300)


@EACH_UDP
@pytest.mark.parametrize("fragment", [0, DONT_FRAGMENT])
@pytest.mark.parametrize("payload", [b"x", b"four"])
def test_64_datagrams_and_no_more(kind: Kind, payload: bytes, fragment: int) -> None:
    packets = frames(kind, [payload] * 197, fragment=fragment)
    assert of_packets(packets[:63]) == grouped(packets[:63], 63)
    assert of_packets(packets[:64]) == grouped(packets[:64], 64)
    assert of_packets(packets[:65]) == grouped(packets[:65], 64, 1)
    assert of_packets(packets) == grouped(packets, 64, 64, 64, 5)
    packets[60] = frame(kind, payload, identification=0x1234 + 60, fragment=fragment, ttl=63)
    assert of_packets(packets) == grouped(packets, 60, 1, 64, 64, 8)
    mixed = [packet for pair in zip(packets, [icmp(4)] * 197, strict=True) for packet in pair]
    sizes = [len(split(views([found]))) for found in of_packets(mixed) if found[0]]
    assert sizes == [60, 64, 64, 8]


@EACH_KIND
def test_two_of_the_longest_packets(kind: Kind) -> None:
    headers = network_size(kind) + (20 if kind.protocol == 6 else 8)
    packets = frames(kind, [b"x" * (MAX_PACKET - headers), b"y"])
    assert of_packets(packets) == grouped(packets, 1, 1)
    packets = frames(kind, [b"x" * (MAX_PACKET - headers - 1), b"y"])
    assert of_packets(packets) == grouped(packets, 2)


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


def third(kind: Kind, payload: bytes = b"abcd", **fields: Any) -> bytes:
    """The third of a train of packets."""
    return frame(kind, payload, sequence=1008, identification=0x1236, **fields)


def around_the_third(kind: Kind, **fields: Any) -> list[bytes]:
    """A longer train, with 12 packets before and behind that one: they may be looked at all at once."""
    return frames(kind, [b"abcd"] * 25, sequence=1008 - 4 * 12, identification=0x1236 - 12, **fields)


@pytest.mark.parametrize(("kind", "change"), DIFFERENCES, ids=str)
def test_headers_that_differ_begin_another_run(kind: Kind, change: dict[str, Any]) -> None:
    train = around_the_third(kind)
    train[12] = third(kind, **change)
    assert of_packets(train) == grouped(train, 12, 1, 12)
    packets = frames(kind, [b"abcd"] * 6)
    packets[2:4] = frames(kind, [b"abcd"] * 2, sequence=1008, identification=0x1236, **change)
    assert of_packets(packets) == grouped(packets, 2, 2, 2)
    # What differs once comes between what would go together: order is kept.
    packets[3] = frame(kind, sequence=1012, identification=0x1237)
    assert of_packets(packets) == grouped(packets, 2, 1, 3)


@EACH_TCP
@pytest.mark.parametrize("place", range(4))
def test_each_byte_of_options_counts(kind: Kind, place: int) -> None:
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
def test_other_flows_are_merged_beside_one_another(kind: Kind, change: dict[str, Any]) -> None:
    if "addresses" in change:
        ends = [("10.0.0.1", "10.0.0.3"), ("11.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1")]
        if kind.version == 6:
            ends = [("fd00::1", "fd00::3"), ("fe00::1", "fd00::2"), ("fd00::2", "fd00::1")]
        change = {"addresses": ends[change["addresses"]]}
    ours, others = frames(kind, [b"abcd"] * 3), frames(kind, [b"abcd"] * 3, **change)
    mixed = [packet for pair in zip(ours, others, strict=True) for packet in pair]
    assert of_packets(mixed) == [naive_merge(kind, ours), naive_merge(kind, others)]


def test_every_kind_between_every_other() -> None:
    trains = [frames(kind, [b"abcd", b"efgh", b"ij"]) for kind in KINDS]
    mixed = [packet for turn in zip(*trains, strict=True) for packet in turn]
    assert of_packets(mixed) == [naive_merge(kind, train) for kind, train in zip(KINDS, trains, strict=True)]


def test_a_merged_record_stands_where_its_first_packet_did() -> None:
    ours, others = frames(TCP4, [b"abcd"] * 4), frames(UDP6, [b"abcd"] * 3)
    mixed = [ours[0], icmp(4), others[0], ours[1], others[1], icmp(6), others[2], ours[2], ours[3]]
    assert of_packets(mixed) == [
        naive_merge(TCP4, ours),
        plain(icmp(4)),
        naive_merge(UDP6, others),
        plain(icmp(6)),
    ]


# Sequence numbers and identifications.


@EACH_TCP
@pytest.mark.parametrize("gap", [1, -1, 4, -4, 2**31, 2**16])
def test_a_gap_begins_another_run(kind: Kind, gap: int) -> None:
    packets = frames(kind, [b"abcd"] * 4)
    packets[2:] = frames(kind, [b"abcd"] * 2, sequence=1008 + gap, identification=0x1236)
    assert of_packets(packets) == grouped(packets, 2, 2)


@EACH_TCP
def test_what_is_out_of_order_stays_so(kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 4, fragment=DONT_FRAGMENT)
    backwards = packets[::-1]
    assert of_packets(backwards) == grouped(backwards, 1, 1, 1, 1)
    swapped = [packets[0], packets[2], packets[1], packets[3]]
    assert of_packets(swapped) == grouped(swapped, 1, 1, 1, 1)
    twice = [packets[0], packets[1], packets[1], packets[2]]
    assert of_packets(twice) == grouped(twice, 2, 2)
    assert of_packets(packets[:1] * 20) == grouped(packets[:1] * 20, *[1] * 20)


@EACH_TCP
@pytest.mark.parametrize("sequence", [2**32 - 4, 2**32 - 3, 2**32 - 1, 2**31 - 2, 0])
def test_sequence_numbers_start_again(kind: Kind, sequence: int) -> None:
    packets = frames(kind, [b"abcd"] * 3, sequence=sequence)
    assert of_packets(packets) == grouped(packets, 3)


@EACH_IPV4
@pytest.mark.parametrize("fragment", [0, RESERVED])
@pytest.mark.parametrize("first", [0, 0x1234, 0xFFFE, 0xFFFF])
def test_identifications_count_up(kind: Kind, first: int, fragment: int) -> None:
    packets = frames(kind, [b"abcd"] * 3, identification=first, fragment=fragment)
    assert of_packets(packets) == grouped(packets, 3)
    assert contents(split(views(of_packets(packets)))) == packets
    for fields in ({"identification": (first - 12) % 0x10000}, {"identification": first}):
        train = frames(kind, [*[b"abcd"] * 30, b"z"], fragment=fragment, **fields)
        assert of_packets(train) == grouped(train, 31)
        assert contents(split(views(of_packets(train)))) == train


@EACH_IPV4
@pytest.mark.parametrize("fragment", [0, DONT_FRAGMENT])
def test_header_checksums_start_again(kind: Kind, fragment: int) -> None:
    """They count down as identifications count up: 2, 1, 0, 0xFFFE. What looks like it but is one more is wrong."""
    addresses = "10.0.0.1", "10.0.0.0"
    checksum = int.from_bytes(frame(kind, addresses=addresses, identification=0, fragment=fragment)[10:12], "big")
    addresses = "10.0.0.1", socket.inet_ntoa(bytes([10, 0]) + (checksum - 10).to_bytes(2, "big"))
    packets = frames(kind, [b"abcd"] * 30, addresses=addresses, identification=0, fragment=fragment)
    checksums = [int.from_bytes(packet[10:12], "big") for packet in packets]
    assert checksums == [*range(10, -1, -1), *range(0xFFFE, 0xFFFE - 19, -1)]
    assert of_packets(packets) == grouped(packets, 30)
    zero = [*packets[:10], with_field(packets[10], 10, 0xFFFF), *packets[11:]]
    assert of_packets(zero) == grouped(zero, 10, 1, 19)
    wrong = packets[:11] + [
        with_field(packet, 10, checksum + 1) for packet, checksum in zip(packets[11:], checksums[11:], strict=True)
    ]
    assert of_packets(wrong) == grouped(wrong, 11, *[1] * 19)
    wrong[11:12] = packets[11:12] if fragment == 0 else []
    right = 12 if fragment == 0 else 11
    assert of_packets(wrong) == grouped(wrong, right, *[1] * 18)


@EACH_IPV4
@pytest.mark.parametrize("fragment", [0, DONT_FRAGMENT])
@pytest.mark.parametrize("first", [0xFFF0, 0xFFFF])
def test_header_checksums_that_count_down_where_identifications_start_again(
    kind: Kind, first: int, fragment: int
) -> None:
    """From 0xFFFF to 0 a sum does not change, for both mean 0: there, one less is wrong."""
    packets = frames(kind, [b"abcd"] * 30, identification=first, fragment=fragment)
    right = 0x10000 - first
    for index in range(right, 30):
        checksum = int.from_bytes(packets[index][10:12], "big")
        packets[index] = with_field(packets[index], 10, (checksum - 1) % 0xFFFF)
    assert of_packets(packets) == grouped(packets, right, *[1] * (30 - right))


@EACH_IPV4
@pytest.mark.parametrize("fragment", [0, RESERVED])
@pytest.mark.parametrize("gap", [0, 2, 0xFFFF, 0x101])
def test_other_identifications_begin_another_run(kind: Kind, gap: int, fragment: int) -> None:
    packets = frames(kind, [b"abcd"] * 4, fragment=fragment)
    number = (0x1235 + gap) % 0x10000
    packets[2:] = frames(kind, [b"abcd"] * 2, sequence=1008, identification=number, fragment=fragment)
    assert of_packets(packets) == grouped(packets, 2, 2)
    train = around_the_third(kind, fragment=fragment)
    train[12:] = frames(kind, [b"abcd"] * 13, sequence=1008, identification=(0x1235 + gap) % 0x10000, fragment=fragment)
    assert of_packets(train) == grouped(train, 12, 13)


@EACH_IPV4
@pytest.mark.parametrize("fragment", [DONT_FRAGMENT, DONT_FRAGMENT | RESERVED])
@pytest.mark.parametrize("numbers", [(0, 0, 0), (7, 6, 5), (0xFFFF, 9, 0xFFFF)])
def test_what_may_not_be_fragmented_has_any_identification(
    kind: Kind, numbers: tuple[int, int, int], fragment: int
) -> None:
    packets = [
        frame(kind, sequence=1000 + 4 * index, identification=number, fragment=fragment)
        for index, number in enumerate(numbers)
    ]
    assert of_packets(packets) == grouped(packets, 3)
    packets = [
        frame(kind, sequence=1000 + 4 * index, identification=number, fragment=fragment)
        for index, number in enumerate([0x1234] * 12 + list(numbers) * 3)
    ]
    assert of_packets(packets) == grouped(packets, 21)


# Flags.


@EACH_TCP
@pytest.mark.parametrize("flags", [0, PSH, SYN, *[ACK | flag for flag in (FIN, SYN, RST, URG, ECE, CWR, ECE | CWR)]])
def test_other_flags_stay_apart_and_end_the_run(kind: Kind, flags: int) -> None:
    for extra in (0, PSH):
        packets = frames(kind, [b"abcd"] * 5)
        packets[2] = frame(kind, sequence=1008, identification=0x1236, flags=flags | extra)
        if flags | extra != ACK | PSH:
            assert of_packets(packets) == grouped(packets, 2, 1, 2)
            packets[2:4] = frames(kind, [b"abcd"] * 2, sequence=1008, identification=0x1236, flags=flags | extra)
            assert of_packets(packets) == grouped(packets, 2, 1, 1, 1)


@EACH_TCP
@pytest.mark.parametrize("reserved", [1, 2, 4, 8, 15])
def test_reserved_bits_of_tcp_stay_apart(kind: Kind, reserved: int) -> None:
    packets = frames(kind, [b"abcd"] * 4, reserved=reserved)
    assert of_packets(packets) == grouped(packets, 1, 1, 1, 1)
    packets[:2] = frames(kind, [b"abcd"] * 2)
    assert of_packets(packets) == grouped(packets, 2, 1, 1)


@EACH_TCP
def test_a_packet_without_payload_ends_the_run(kind: Kind) -> None:
    packets = frames(kind, [b"abcd", b"abcd", b"", b"abcd", b"abcd"])
    assert of_packets(packets) == grouped(packets, 2, 1, 2)


# Packets whose flow cannot be told end all runs, others of no flow none.


def barriers() -> dict[str, bytes]:
    far: dict[str, Any] = {"addresses": ("192.0.2.1", "192.0.2.2")}
    far6: dict[str, Any] = {"addresses": ("2001:db8::1", "2001:db8::2")}
    found = {
        "more fragments": frame(UDP4, fragment=MORE_FRAGMENTS, **far),
        "more fragments, of tcp": frame(TCP4, fragment=MORE_FRAGMENTS | DONT_FRAGMENT, **far),
        "more fragments, of icmp": with_field(icmp(4), 6, MORE_FRAGMENTS),
        "the shortest offset": frame(UDP4, fragment=1, **far),
        "the longest offset": frame(UDP4, fragment=0x1FFF, **far),
        "an offset of 256 units": frame(TCP4, fragment=DONT_FRAGMENT | 0x100, **far),
        "options": frame(TCP4, middle=bytes([0x94, 4, 0, 0]), **far),
        "all options": frame(UDP4, middle=bytes(40), **far),
        "no options, but too short a header": with_bits(frame(UDP4, **far), 0, 1),
        "7 bytes of udp": frame(UDP4, **far)[:27],
        "7 bytes of tcp": frame(TCP4, **far)[:27],
        "an IPv4 header alone": frame(TCP4, **far)[:20],
        "half an IPv4 header": icmp(4)[:19],
        "7 bytes of udp, of IPv6": frame(UDP6, **far6)[:47],
        "an IPv6 header alone": frame(TCP6, **far6)[:40],
        "half an IPv6 header": icmp(6)[:39],
        "another version": b"\x55" + frame(TCP4)[1:],
        "an empty packet": b"",
        "noise": b"\xff" * 60,
    }
    for protocol in (0, 43, 44, 51, 60, 135, 41, 4, 132, 255):
        found[f"IPv6 with next header {protocol}"] = frame(TCP6, protocol=protocol, **far6)
    return found


BARRIERS = barriers()


@EACH_KIND
@pytest.mark.parametrize("barrier", BARRIERS.values(), ids=BARRIERS.keys())
def test_what_hides_its_flow_ends_all_runs(kind: Kind, barrier: bytes) -> None:
    packets, others = frames(kind, [b"abcd"] * 4), frames(KINDS[kind == TCP4], [b"abcd"] * 4, ports=(1, 2))
    mixed = [packets[0], others[0], packets[1], others[1], barrier, packets[2], others[2], packets[3], others[3]]
    assert of_packets(mixed) == [
        *(naive_merge(kind, packets[:2]), naive_merge(KINDS[kind == TCP4], others[:2])),
        plain(barrier),
        *(naive_merge(kind, packets[2:]), naive_merge(KINDS[kind == TCP4], others[2:])),
    ]


NO_BARRIERS = {
    "icmp": icmp(4),
    "icmpv6": icmp(6),
    "icmp, cut short": icmp(4)[:20],
    "icmpv6, cut short": icmp(6)[:40],
    **{f"IPv4 with protocol {protocol}": frame(TCP4, protocol=protocol) for protocol in (0, 4, 41, 47, 50, 51, 132)},
    **{f"IPv6 with next header {protocol}": frame(TCP6, protocol=protocol) for protocol in (50, 58, 59)},
}


@EACH_KIND
@pytest.mark.parametrize("between", NO_BARRIERS.values(), ids=NO_BARRIERS.keys())
def test_what_has_no_flow_ends_no_run(kind: Kind, between: bytes) -> None:
    packets = frames(kind, [b"abcd"] * 4)
    mixed = [packets[0], between, between, *packets[1:], between]
    assert of_packets(mixed) == [naive_merge(kind, packets), *[plain(between)] * 3]


@EACH_IPV4
@pytest.mark.parametrize("fragment", [MORE_FRAGMENTS, 1, MORE_FRAGMENTS | 0x1FFF, DONT_FRAGMENT | 0x10])
def test_fragments_of_the_flow_stay_apart(kind: Kind, fragment: int) -> None:
    packets = frames(kind, [b"abcd"] * 3, fragment=fragment)
    assert of_packets(packets) == grouped(packets, 1, 1, 1)


@EACH_KIND
def test_options_and_extension_headers_stay_apart(kind: Kind) -> None:
    middle = bytes([0x94, 4, 0, 0]) if kind.version == 4 else bytes([kind.protocol, 0, 1, 4, 0, 0, 0, 0])
    packets = frames(kind, [b"abcd"] * 3, middle=middle)
    assert of_packets(packets) == grouped(packets, 1, 1, 1)


# Wrong checksums and lengths stay as they are: nothing repairs them, nothing passes them.


def assert_alone(wrong: bytes, kind: Kind) -> None:
    """That a packet in the place of the third of a train stays byte for byte and apart, and order is kept."""
    packets = frames(kind, [b"abcd"] * 5)
    packets[2] = wrong
    assert of_packets(packets) == grouped(packets, 2, 1, 2)
    assert of_packets(packets[2:]) == grouped(packets[2:], 1, 2)
    assert of_packets([packets[1], wrong]) == grouped([packets[1], wrong], 1, 1)
    assert of_packets([wrong, wrong]) == grouped([wrong, wrong], 1, 1)
    train = around_the_third(kind)
    train[12] = wrong
    assert of_packets(train) == grouped(train, 12, 1, 12)
    train[:12] = [wrong] * 12
    assert of_packets(train) == grouped(train, *[1] * 13, 12)
    assert of_packets([wrong] * 20) == grouped([wrong] * 20, *[1] * 20)


@EACH_KIND
def test_the_tests_below_have_packets_that_are_right_but_for_one_thing(kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 5)
    assert packets[2] == third(kind) == around_the_third(kind)[12]
    assert of_packets(packets) == grouped(packets, 5)
    assert of_packets(around_the_third(kind)) == grouped(around_the_third(kind), 25)


@EACH_KIND
@pytest.mark.parametrize("bits", [0x01, 0x80])
@pytest.mark.parametrize("place", [-1, -4])
def test_a_damaged_payload_is_not_repaired(kind: Kind, place: int, bits: int) -> None:
    packet = third(kind)
    assert_alone(with_bits(packet, len(packet) + place, bits), kind)


@EACH_KIND
@pytest.mark.parametrize("place", [0, 1])
def test_a_damaged_checksum_is_not_repaired(kind: Kind, place: int) -> None:
    assert_alone(with_bits(third(kind), network_size(kind) + kind.field + place, 0x10), kind)


@EACH_KIND
def test_an_open_checksum_in_a_packet_that_says_it_is_complete(kind: Kind) -> None:
    assert_alone(opened(third(kind), network_size(kind), kind), kind)


@EACH_IPV4
@pytest.mark.parametrize("place", [10, 11])
def test_a_damaged_header_checksum_is_not_repaired(kind: Kind, place: int) -> None:
    assert_alone(with_bits(third(kind), place, 0x04), kind)


@EACH_IPV4
def test_a_header_without_a_checksum_gets_none(kind: Kind) -> None:
    assert_alone(with_field(third(kind), 10, 0), kind)


@EACH_TCP
def test_of_two_zeros_the_one_that_is_not_computed_is_not_replaced(kind: Kind) -> None:
    """A receiver takes 0xFFFF for 0, which TCP does not do; a splitter gives back 0."""
    packets = frames(kind, [b"abcd"] * 5)
    packets[2] = summing_to_zero(third(kind), network_size(kind), kind)
    assert of_packets(packets) == grouped(packets, 5)
    assert_alone(with_field(packets[2], network_size(kind) + 16, 0xFFFF), kind)


@EACH_IPV4
@pytest.mark.parametrize("fragment", [0, DONT_FRAGMENT])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_of_two_zeros_of_a_header_the_one_that_is_not_computed_is_not_replaced(
    kind: Kind, place: int, fragment: int
) -> None:
    number = int.from_bytes(header_summing_to_zero(frame(kind, fragment=fragment))[4:6], "big")
    packets = frames(kind, [b"abcd"] * 6, identification=number - place, fragment=fragment)
    assert packets[place][10:12] == bytes(2)
    assert of_packets(packets) == grouped(packets, 6)
    packets[place] = with_field(packets[place], 10, 0xFFFF)
    assert of_packets(packets) == grouped(packets, *([place] if place else []), 1, 5 - place)


@EACH_UDP
def test_udp_whose_checksum_comes_out_as_zero_is_merged(kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 5)
    packets[2] = with_field(summing_to_zero(third(kind), network_size(kind), kind), network_size(kind) + 6, 0xFFFF)
    assert completed_again(kind, packets[2]) == packets[2]
    assert of_packets(packets) == grouped(packets, 5)
    assert contents(split(views(of_packets(packets)))) == packets


@EACH_UDP
def test_udp_without_a_checksum_stays_apart(kind: Kind) -> None:
    assert_alone(with_field(third(kind), network_size(kind) + 6, 0), kind)
    # Also where 0 is what comes out of the sum.
    assert_alone(summing_to_zero(third(kind), network_size(kind), kind), kind)


@EACH_UDP
@pytest.mark.parametrize("length", [0, 7, 8, 11, 13, 0xFFFF, 0x010C])
def test_a_length_of_udp_that_is_not_that_of_the_packet(kind: Kind, length: int) -> None:
    start = network_size(kind)
    assert_alone(with_field(third(kind), start + 4, length), kind)
    # Such packets stay apart even with a checksum over what they say.
    assert_alone(completed(with_field(third(kind), start + 4, length), start, kind), kind)


@EACH_KIND
@pytest.mark.parametrize("change", [1, -1, 256, -5])
def test_a_length_of_ip_that_is_not_that_of_the_packet(kind: Kind, change: int) -> None:
    place = 2 if kind.version == 4 else 4
    packet = third(kind)
    packet = with_field(packet, place, (int.from_bytes(packet[place : place + 2], "big") + change) % 0x10000)
    if kind.version == 4:
        packet = with_field(with_field(packet, 10, 0), 10, naive_checksum(with_field(packet, 10, 0)[:20]))
    assert_alone(packet, kind)


@EACH_KIND
@pytest.mark.parametrize("padding", [1, 2, 100])
def test_padding_stays(kind: Kind, padding: int) -> None:
    # Zeros leave the checksum right, but for the length in the pseudo-header.
    assert_alone(third(kind) + bytes(padding), kind)


@EACH_KIND
def test_packets_cut_short_stay_apart(kind: Kind) -> None:
    packet = third(kind)
    for size in range(network_size(kind) + 8, len(packet)):
        assert_alone(packet[:size], kind)


@EACH_TCP
@pytest.mark.parametrize("words", [0, 4, 6, 7, 15])
def test_a_header_of_tcp_that_is_too_short_or_too_long(kind: Kind, words: int) -> None:
    start = network_size(kind)
    packet = third(kind)
    packet = packet[: start + 12] + bytes([words << 4]) + packet[start + 13 :]
    # With 4 bytes of payload a header of 6 words leaves none.
    assert_alone(completed(packet, start, kind), kind)


# Checksums that were left to be completed.


@EACH_KIND
def test_open_checksums_are_merged_without_a_look_at_the_payload(kind: Kind) -> None:
    packets = frames(kind, [b"abcd", b"efgh", b"ij"])
    assert of_records([partial(kind, packet) for packet in packets]) == [naive_merge(kind, packets)]


@EACH_KIND
@pytest.mark.parametrize("which", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 2}])
def test_open_and_complete_checksums_are_merged(kind: Kind, which: set[int]) -> None:
    packets = frames(kind, [b"abcd", b"efgh", b"ij"])
    records = [partial(kind, packet) if index in which else plain(packet) for index, packet in enumerate(packets)]
    assert of_records(records) == [naive_merge(kind, packets)]


def assert_record_alone(wrong: memoryview, kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 5)
    for others in ([bytes(partial(kind, packet)) for packet in packets], [plain(packet) for packet in packets]):
        records = [*others[:2], bytes(wrong), *others[3:]]
        merged = [naive_merge(kind, packets[:2]), bytes(wrong), naive_merge(kind, packets[3:])]
        assert of_records(records) == merged
        assert of_records(records[2:]) == merged[1:]
        assert of_records([wrong, wrong]) == contents([wrong, wrong])
    train = around_the_third(kind)
    records = [bytes(partial(kind, packet)) for packet in train]
    records[12] = bytes(wrong)
    merged = [naive_merge(kind, train[:12]), bytes(wrong), naive_merge(kind, train[13:])]
    assert of_records(records) == merged
    records[:12] = [bytes(wrong)] * 12
    assert of_records(records) == [bytes(wrong)] * 13 + merged[2:]
    assert of_records([wrong] * 20) == [bytes(wrong)] * 20


@EACH_KIND
@pytest.mark.parametrize("change", [1, -1, 0x100])
def test_another_sum_of_the_pseudo_header_stays_apart(kind: Kind, change: int) -> None:
    wrong = partial(kind, third(kind))
    place = HEADER_SIZE + network_size(kind) + kind.field
    value = int.from_bytes(wrong[place : place + 2], "big") + change
    wrong[place : place + 2] = (value % 0x10000).to_bytes(2, "big")
    assert_record_alone(wrong, kind)


@EACH_KIND
def test_a_complete_checksum_in_a_record_that_says_it_is_open(kind: Kind) -> None:
    start = network_size(kind)
    assert_record_alone(record(third(kind), flags=NEEDS_CSUM, start=start, field=kind.field), kind)


@EACH_KIND
@pytest.mark.parametrize(
    "change", [{"start": 1}, {"start": -2, "field": 2}, {"field": 1}, {"field": -10}, {"start": 20}]
)
def test_an_open_checksum_in_another_place_stays_apart(kind: Kind, change: dict[str, int]) -> None:
    packet = opened(third(kind), start := network_size(kind), kind)
    field = (kind.field + change.get("field", 0)) % 22
    assert_record_alone(record(packet, flags=NEEDS_CSUM, start=start + change.get("start", 0), field=field), kind)


@EACH_KIND
@pytest.mark.parametrize("change", [-1, 1, 4])
def test_an_open_checksum_does_not_excuse_lengths(kind: Kind, change: int) -> None:
    right = bytes(partial(kind, third(kind)))
    assert_record_alone(memoryview(bytearray(right[:change] if change < 0 else right + bytes(change))), kind)


@EACH_IPV4
def test_an_open_checksum_does_not_excuse_that_of_the_header(kind: Kind) -> None:
    assert_record_alone(partial(kind, with_bits(third(kind), 11, 1)), kind)


@EACH_KIND
def test_what_a_header_says_beside_is_not_looked_at(kind: Kind) -> None:
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
def test_superpackets_of_others_end_no_run(kind: Kind) -> None:
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
def test_headers_that_make_no_sense_stay_as_they_are(kind: Kind, fields: dict[str, int]) -> None:
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
def test_input_is_left_as_it_is_and_results_are_apart(kind: Kind, as_records: bool) -> None:
    packets = [*frames(kind, [b"abcd"] * 3), icmp(4), *frames(kind, [b"abcd"] * 2, ports=(1, 2)), icmp(6)]
    pieces = [bytearray(plain(packet) if as_records else packet) for packet in packets]
    before = [bytes(piece) for piece in pieces]
    merged = grouped([*packets[:3], *packets[3:]], 3, 1, 2, 1)
    found = coalesce([memoryview(piece) for piece in pieces], as_records, True)
    assert [bytes(piece) for piece in pieces] == before
    new = [view for view, expected in zip(found, merged, strict=True) if not as_records or expected[1]]
    assert len(new) == (2 if as_records else 4)
    for view in new:  # What is new has memory of its own.
        kept = contents(found)
        view[:] = bytes(len(view))
        kept[found.index(view)] = bytes(len(view))
        assert contents(found) == kept
    assert [bytes(piece) for piece in pieces] == before


def test_results_outlive_the_packets() -> None:
    packets = [*frames(TCP4, [b"abcd"] * 3), icmp(4)]
    pieces = [bytearray(packet) for packet in packets]
    found = coalesce([memoryview(piece) for piece in pieces], False, True)
    for piece in pieces:
        piece.clear()  # Which bytes would refuse whose memory a result lies in.
    assert contents(found) == grouped(packets, 3, 1)


def test_a_record_that_nothing_was_merged_with_is_the_one_that_came() -> None:
    memory = bytearray(plain(frame(TCP4)))
    (found,) = coalesce([memoryview(memory)], True, True)
    memory[-1] ^= 0xFF
    assert bytes(found) == bytes(memory)


@AS_RECORDS
def test_views_of_one_arena(as_records: bool) -> None:
    """As they come of `receive`: one behind the other, writable, in one buffer."""
    packets = frames(TCP4, [b"abcd"] * 8)
    pieces = [plain(packet) if as_records else packet for packet in packets]
    arena = memoryview(bytearray(b"".join(pieces)))
    ends = [len(pieces[0]) * index for index in range(9)]
    found = coalesce([arena[start:end] for start, end in pairwise(ends)], as_records, True)
    assert contents(found) == [naive_merge(TCP4, packets)]


# What is told about many records, which may be looked at all at once.


@pytest.mark.parametrize("place", [0, 5, 11])
@pytest.mark.parametrize("kind", KINDS, ids=["tcp4", "tcp6", "udp4", "udp6"])
def test_many_records_are_measured_as_each_of_them_is(kind: Kind, place: int) -> None:
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


# The naive model: what is merged is what the naive splitter gives back, and a handful of rules.


def flow_of(packet: bytes) -> tuple[Kind, bytes] | None:
    kind = kind_of(packet)
    if kind is None:
        return None
    start = network_size(kind)
    return kind, packet[12 if kind.version == 4 else 8 : start + 4]


def is_of_no_flow(packet: bytes) -> bool:
    """Whether it certainly has neither TCP nor UDP inside."""
    if len(packet) >= 20 and packet[0] == 0x45 and not int.from_bytes(packet[6:8], "big") & 0x3FFF:
        return packet[9] not in (6, 17)
    return len(packet) >= 40 and packet[0] >> 4 == 6 and packet[6] in (50, 58, 59)


def may_be_merged(piece: bytes, kind: Kind, udp: bool) -> bool:
    """The rules that are about one record; what comes of merging is tried."""
    flags, gso_type, _, _, start, field = struct.unpack_from("=BBHHHH", piece)
    packet = piece[HEADER_SIZE:]
    at = network_size(kind)
    if gso_type or (kind.protocol == 17 and not udp):
        return False
    if flags & NEEDS_CSUM and ((start, field) != (at, kind.field) or opened(packet, at, kind) != packet):
        return False
    if kind.version == 4 and with_field(packet, 10, naive_checksum(with_field(packet, 10, 0)[:20])) != packet:
        return False
    if kind.protocol == 6:
        return len(packet) >= at + 20 and packet[at + 12] % 16 == 0 and packet[at + 13] in (ACK, ACK | PSH)
    return True


def meaningful(packet: bytes) -> bytes:
    """The packet without the identification that one which may not be fragmented has, and its header's checksum."""
    if len(packet) >= 20 and packet[0] >> 4 == 4 and packet[6] & 0x40:
        return packet[:4] + packet[6:10] + packet[12:]
    return packet


def is_same_when_split(pieces: Sequence[bytes], kind: Kind) -> bool:
    packets = [piece[HEADER_SIZE:] for piece in pieces]
    if not all(len(packet) > header_size(kind, packet) for packet in packets):
        return False
    if header_size(kind, packets[0]) + sum(len(packet) - header_size(kind, packet) for packet in packets) > MAX_PACKET:
        return False
    if kind.protocol == 17 and len(packets) > 64:
        return False
    whole = naive_merge(kind, packets)
    single = [packet for piece in pieces for packet in naive_split(piece)]
    return list(map(meaningful, naive_split(whole))) == list(map(meaningful, single))


def naive_coalesce(pieces: Iterable[bytes], udp: bool) -> list[bytes]:
    """What becomes of records: every packet is tried behind the last ones of its flow."""
    runs: list[tuple[Kind | None, list[bytes]]] = []
    last: dict[tuple[Kind, bytes], list[bytes]] = {}
    for piece in pieces:
        flow = flow_of(piece[HEADER_SIZE:])
        if flow is None:
            if not is_of_no_flow(piece[HEADER_SIZE:]):
                last.clear()
            runs.append((None, [piece]))
            continue
        kind, run = flow[0], [*last.get(flow, []), piece]
        if len(run) > 1 and all(may_be_merged(part, kind, udp) for part in run) and is_same_when_split(run, kind):
            last[flow].append(piece)
        else:
            last[flow] = [piece]
            runs.append((kind, last[flow]))
    return [
        naive_merge(kind, [piece[HEADER_SIZE:] for piece in run]) if kind and len(run) > 1 else run[0]
        for kind, run in runs
    ]


def by_flow(packets: Iterable[bytes]) -> dict[object, list[bytes]]:
    """The packets of each flow in their order; what has no flow that can be told is by itself."""
    found: dict[object, list[bytes]] = {}
    for packet in packets:
        found.setdefault(flow_of(packet), []).append(meaningful(packet))
    return found


def assert_as_the_model(pieces: list[bytes], as_records: bool, udp: bool) -> list[memoryview]:
    """The records, after everything that can be told about them was found to hold."""
    given_pieces = [memoryview(bytearray(piece)) for piece in pieces]
    found = coalesce(given_pieces, as_records, udp)
    assert contents(given_pieces) == pieces
    records = pieces if as_records else [plain(piece) for piece in pieces]
    assert contents(found) == naive_coalesce(records, udp)
    assert len(found) <= len(pieces)
    assert max(map(len, found), default=0) <= max(MAX_RECORD, *map(len, records), 0)
    single = [packet for piece in records for packet in naive_split(piece)]
    assert by_flow(packet for view in found for packet in naive_split(bytes(view))) == by_flow(single)
    assert measure(found)[:2] == measure(views(records))[:2] == (len(single), sum(map(len, single)))
    assert by_flow(contents(split(found))) == by_flow(single)
    return found


SOURCES = st.randoms(use_true_random=False)


@property_of(150)
@given(SOURCES, st.integers(0, 12), st.booleans())
def test_traffic_is_merged_as_in_the_model(source: random.Random, count: int, udp: bool) -> None:
    assert_as_the_model(traffic(source, count), False, udp)


@property_of(150)
@given(SOURCES, st.integers(0, 12), st.booleans())
def test_records_are_merged_as_in_the_model(source: random.Random, count: int, udp: bool) -> None:
    assert_as_the_model(records_of(source, traffic(source, count)), True, udp)


@pytest.mark.parametrize("seed", range(40))
def test_much_traffic_is_merged_as_in_the_model(seed: int) -> None:
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
def test_hostile_packets_never_fail(pieces: list[bytes], as_records: bool, udp: bool) -> None:
    assert_as_the_model([plain(piece) for piece in pieces] if as_records else pieces, as_records, udp)


@property_of(300)
@given(st.lists(st.binary(min_size=HEADER_SIZE, max_size=120), max_size=4))
def test_hostile_records_never_fail(pieces: list[bytes]) -> None:
    assert_as_the_model(pieces, True, True)


@property_of(150)
@given(
    st.sampled_from([UDP4, UDP6, TCP4]),
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 80), st.integers(1, 255)), max_size=2),
    st.sampled_from([0, DONT_FRAGMENT]),
    st.sampled_from([0x1234, 0xFFF8]),
)
def test_damaged_bursts_are_merged_as_in_the_model(
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
def test_damaged_trains_are_merged_as_in_the_model(
    kind: Kind, damage: list[tuple[int, int, int]], as_records: bool
) -> None:
    packets = frames(kind, [b"abcd", b"efgh", b"ijkl", b"mn"], options=bytes(4))
    pieces = [plain(packet) if as_records else packet for packet in packets]
    for which, place, bits in damage:
        pieces[which] = with_bits(pieces[which], place % len(pieces[which]), bits)
    assert_as_the_model(pieces, as_records, True)
