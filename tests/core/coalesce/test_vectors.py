"""Coalescing by hand-made vectors: complete packets on one side, the whole record on the other."""

import struct

import pytest

from tests.support.coalescing import AS_RECORDS, contents, grouped, of_packets, of_records, plain, views
from tests.support.frames import (
    EACH_KIND,
    EACH_TCP,
    EACH_UDP,
    NEEDS_CSUM,
    UDP4,
    Kind,
    frame,
    frames,
    naive_merge,
    network_size,
    opened,
    partial,
    superpacket,
)
from threepipe.core.fast import coalesce
from threepipe.core.superpacket import HEADER_SIZE


def header(gso_type: int, hdr_len: int, size: int, start: int, field: int) -> bytes:
    return struct.pack("=BBHHHH", NEEDS_CSUM, gso_type, hdr_len, size, start, field)


@AS_RECORDS
@pytest.mark.parametrize(
    ("parts", "whole", "fields"),
    [
        # Identification and sequence number wrap to 0; PSH comes from the last. The pseudo-header's sum
        # is 0a00 + 0001 + 0a00 + 0002 + 0006 + 001b (7 bytes after 20 of TCP) = 1424.
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
        # With "don't fragment", identifications mean nothing: that of the first packet is kept.
        (
            [
                "4502001e 77774000 4011af53 0a000001 0a000002 01bbc350 000a c569 6162",
                "4502001e 00004000 401126cb 0a000001 0a000002 01bbc350 000a c367 6364",
                "4502001e 00014000 401126ca 0a000001 0a000002 01bbc350 000a c165 6566",
            ],
            "45020022 77774000 4011af4f 0a000001 0a000002 01bbc350 000e 1422 616263646566",
            (5, 28, 2, 20, 6),
        ),
        # The second checksum would be 0, which UDP sends as ffff.
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
def test_hand_made_packets_become_the_hand_made_record(
    parts: list[str], whole: str, fields: tuple[int, int, int, int, int], as_records: bool
) -> None:
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
    # The packet is the one that the far end would have sent with all the payload, with its checksum left open.
    assert whole[HEADER_SIZE:] == opened(
        frame(kind, b"0123456789abcd", tos=0xB9, ttl=7, label=0xFEDCB), network_size(kind), kind
    )


@EACH_TCP
@pytest.mark.parametrize("options", [b"", bytes([1, 1, 1, 1]), bytes(range(40))], ids=len)
def test_the_record_keeps_the_tcp_options(kind: Kind, options: bytes) -> None:
    packets = frames(kind, [b"abc", b"def"], options=options, urgent=9, sequence=0)
    (whole,) = of_packets(packets)
    assert whole == naive_merge(kind, packets)
    assert struct.unpack_from("=2xH", whole) == (network_size(kind) + 20 + len(options),)


def test_no_packets_give_no_records() -> None:
    assert of_packets([]) == []


@EACH_KIND
def test_a_single_packet_stays_as_it_is(kind: Kind) -> None:
    assert of_packets([packet := frame(kind)]) == [plain(packet)]
    assert of_records([partial(kind, packet)]) == [bytes(partial(kind, packet))]
    assert of_records([superpacket(kind, packet, 2)]) == [bytes(superpacket(kind, packet, 2))]


# A kernel that takes no superpackets of UDP.


@EACH_UDP
def test_datagrams_stay_single_without_udp_superpackets(kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 3)
    assert of_packets(packets, udp=False) == grouped(packets, 1, 1, 1)
    records = [partial(kind, packet) for packet in packets]
    assert of_records(records, udp=False) == contents(records)


@EACH_TCP
def test_tcp_is_merged_without_udp_superpackets(kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 3)
    assert of_packets(packets, udp=False) == grouped(packets, 3)
    others = frames(UDP4, [b"abcd"] * 2)
    mixed = [packets[0], others[0], packets[1], others[1], packets[2]]
    assert of_packets(mixed, udp=False) == [naive_merge(kind, packets), plain(others[0]), plain(others[1])]
