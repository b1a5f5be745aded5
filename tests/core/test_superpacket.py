"""Superpackets against hand-made vectors and a naive splitter, and hostile records."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.frames import (
    ACK,
    CWR,
    EACH_KIND,
    EACH_TCP,
    ECE,
    FIN,
    KINDS,
    NEEDS_CSUM,
    PSH,
    TCP4,
    TCP6,
    UDP4,
    UDP6,
    Kind,
    completed,
    ip,
    naive_split,
    network_size,
    opened,
    pseudo_header,
    record,
    superpacket,
    tcp,
    udp,
    with_field,
)
from tests.support.rfc1071 import naive_checksum
from tests.support.superpackets import (
    BASE,
    HOSTILE,
    WORDS,
    assert_right,
    changed,
    contents,
    property_of,
    superpackets,
    transport_of,
    with_byte,
)
from threepipe.core.fast import measure, split
from threepipe.core.packet import MAX_PACKET, check_packets
from threepipe.core.superpacket import HEADER_SIZE, MAX_RECORD, PLAIN_HEADER


def assert_as_naive(view: memoryview) -> list[memoryview]:
    """Return the packets of a record, after a check that `split`, `measure` and the naive splitter agree."""
    expected = naive_split(bytes(view))
    told = measure([view])[:2]
    packets = split([view])
    assert contents(packets) == expected
    assert told == (len(expected), sum([len(packet) for packet in expected]))
    assert measure([view])[:2] == told
    return packets


# Vectors.


def test_a_tcp4_superpacket_splits_into_the_hand_made_segments() -> None:
    # Identification 0xFFFF, sequence number 0xFFFFFFFE, FIN and PSH; every checksum was computed by hand.
    addresses, ports = "0a000001 0a000002", "01bb c350"
    parts = [
        ("4500002f ffff4000 4006 26c7", "fffffffe 0000004d 5019 0200 1424 0000", b"abcdefg"),
        ("4500002b ffff4000 4006 26cb", "fffffffe 0000004d 5010 0200 1015 0000", b"abc"),
        ("4500002b 00004000 4006 26cb", "00000001 0000004d 5010 0200 0a10 0000", b"def"),
        ("45000029 00014000 4006 26cc", "00000004 0000004d 5019 0200 6d6b 0000", b"g"),
    ]
    packets = [bytes.fromhex(front + addresses + ports + rest) + payload for front, rest, payload in parts]
    view = record(packets[0], flags=NEEDS_CSUM, gso_type=1, hdr_len=40, size=3, start=20, field=16)
    assert contents(split([view])) == packets[1:]


def test_a_udp6_superpacket_splits_into_the_hand_made_datagrams() -> None:
    front, addresses = "60000000 {} 11 40", "fd00" + "00" * 13 + "01 fd00" + "00" * 13 + "02"
    parts = [
        ("000c", "01bb c350 000c fa21", b"abcd"),
        ("000b", "01bb c350 000b 7c65", b"abc"),
        ("0009", "01bb c350 0009 dccb", b"d"),
    ]
    packets = [bytes.fromhex(front.format(size) + addresses + rest) + payload for size, rest, payload in parts]
    view = record(packets[0], flags=NEEDS_CSUM, gso_type=5, hdr_len=48, size=3, start=40, field=6)
    assert contents(split([view])) == packets[1:]


@EACH_KIND
@pytest.mark.parametrize("hdr_len", [0, 1, 54, 0xFFFF])
def test_the_last_segment_may_be_short_and_hdr_len_is_ignored(kind: Kind, hdr_len: int) -> None:
    view = superpacket(kind, ip(kind, transport_of(kind, b"0123456789")), 4, hdr_len=hdr_len)
    start = network_size(kind)
    parts = [b"0123", b"4567", b"89"]
    assert contents(assert_as_naive(view)) == [
        completed(ip(kind, transport_of(kind, part, 1000 + 4 * index), 0x1234 + index), start, kind)
        for index, part in enumerate(parts)
    ]


@EACH_KIND
@pytest.mark.parametrize("size", [4, 5, 8, 0xFFFF])
def test_a_payload_of_full_segments_or_of_one_splits(kind: Kind, size: int) -> None:
    view = superpacket(kind, ip(kind, transport_of(kind, b"01234567")), size)
    packets = assert_as_naive(view)
    assert [len(packet) - (len(view) - HEADER_SIZE - 8) for packet in packets] == {4: [4, 4], 5: [5, 3]}.get(size, [8])
    for packet in packets:
        assert_right(bytes(packet), network_size(kind), kind.protocol)


@EACH_TCP
def test_every_segment_has_the_tcp_options(kind: Kind) -> None:
    options = bytes.fromhex("0101080a 11223344 55667788 0204ffff")
    view = superpacket(kind, ip(kind, tcp(b"abcde", options=options)), 2)
    assert contents(assert_as_naive(view)) == [
        completed(ip(kind, tcp(part, 1000 + 2 * index, options=options), 0x1234 + index), network_size(kind), kind)
        for index, part in enumerate([b"ab", b"cd", b"e"])
    ]


@EACH_TCP
@pytest.mark.parametrize("payload", [b"abcdef", b"abcde"], ids=["full", "short"])
def test_the_last_segment_has_fin_and_psh_and_the_first_has_cwr(kind: Kind, payload: bytes) -> None:
    view = superpacket(kind, ip(kind, tcp(payload, flags=0xFF)), 2)
    others = 0xFF ^ FIN ^ PSH ^ CWR
    flags = [packet[network_size(kind) + 13] for packet in assert_as_naive(view)]
    assert flags == [others | CWR, others, others | FIN | PSH]
    (alone,) = split([superpacket(kind, ip(kind, tcp(payload, flags=ACK | ECE | CWR | FIN)), 6)])
    assert alone[network_size(kind) + 13] == ACK | ECE | CWR | FIN


def test_the_identification_wraps_after_65535() -> None:
    packets = assert_as_naive(superpacket(UDP4, ip(UDP4, udp(b"abcd"), 0xFFFE), 1))
    assert [bytes(packet[4:6]).hex() for packet in packets] == ["fffe", "ffff", "0000", "0001"]


@EACH_TCP
def test_the_sequence_number_wraps_after_4_294_967_295(kind: Kind) -> None:
    packets = assert_as_naive(superpacket(kind, ip(kind, tcp(b"abcdef", 0xFFFFFFFD)), 2))
    start = network_size(kind) + 4
    assert [bytes(packet[start : start + 4]).hex() for packet in packets] == ["fffffffd", "ffffffff", "00000001"]


@pytest.mark.parametrize("kind", [TCP6, UDP6], ids=["tcp6", "udp6"])
def test_the_ipv6_payload_length_includes_an_extension_header(kind: Kind) -> None:
    extension = bytes([kind.protocol, 0, 1, 4, 0, 0, 0, 0])
    packet = ip(kind, transport_of(kind, b"abcde"), middle=extension)
    packets = assert_as_naive(superpacket(kind, packet, 3, start=48))
    assert contents(packets) == [
        completed(ip(kind, transport_of(kind, b"abc"), middle=extension), 48, kind),
        completed(ip(kind, transport_of(kind, b"de", 1003), middle=extension), 48, kind),
    ]
    assert [int.from_bytes(packet[4:6], "big") for packet in packets] == [len(packet) - 40 for packet in packets]


@pytest.mark.parametrize("kind", [TCP4, UDP4], ids=["tcp4", "udp4"])
def test_every_segment_has_the_ipv4_options(kind: Kind) -> None:
    options = bytes([0x94, 4, 0, 0])
    view = superpacket(kind, ip(kind, transport_of(kind, b"abcde"), middle=options), 3, start=24)
    assert contents(assert_as_naive(view)) == [
        completed(ip(kind, transport_of(kind, b"abc"), 0x1234, options), 24, kind),
        completed(ip(kind, transport_of(kind, b"de", 1003), 0x1235, options), 24, kind),
    ]


@EACH_KIND
def test_a_zero_checksum_becomes_ffff_in_udp_and_stays_zero_in_tcp(kind: Kind) -> None:
    start = network_size(kind)
    wanted = naive_checksum(
        (plain := ip(kind, transport_of(kind, b"\0\0")))[start:] + pseudo_header(plain, start, kind.protocol)
    )
    view = superpacket(kind, ip(kind, transport_of(kind, wanted.to_bytes(2, "big") + b"tail")), 2)
    first = assert_as_naive(view)[0]
    field = start + kind.field
    assert bytes(first[field : field + 2]) == (b"\xff\xff" if kind.protocol == 17 else b"\0\0")
    assert naive_checksum(pseudo_header(bytes(first), start, kind.protocol) + first[start:]) == 0


@EACH_KIND
@pytest.mark.parametrize("size", [536, 1448, 0xFFFF])
def test_the_longest_superpacket_splits_with_all_its_payload(kind: Kind, size: int) -> None:
    empty = len(ip(kind, transport_of(kind, b"")))
    payload = random.Random(size).randbytes(MAX_PACKET - empty)
    view = superpacket(kind, ip(kind, transport_of(kind, payload)), size)
    assert len(view) == MAX_RECORD
    packets = assert_as_naive(view)
    assert b"".join([packet[empty:] for packet in packets]) == payload


@EACH_KIND
def test_segments_are_writable_copies_of_the_record(kind: Kind) -> None:
    view = superpacket(kind, ip(kind, transport_of(kind, b"abcdef")), 2)
    before = bytes(view)
    for packet in split([view]):
        packet[:] = bytes(len(packet))
    assert bytes(view) == before


@property_of(400)
@given(superpackets())
def test_random_superpackets_split_as_by_the_naive_splitter(view: memoryview) -> None:
    before = bytes(view)
    packets = assert_as_naive(view)
    assert packets
    assert bytes(view) == before
    size, start, field = struct.unpack_from("=4xHHH", view)
    headers = start + ((view[HEADER_SIZE + start + 12] >> 4) * 4 if field == 16 else 8)
    assert {len(packet) for packet in packets[:-1]} <= {headers + size}
    assert headers < len(packets[-1]) <= headers + size
    for packet in packets:
        assert_right(bytes(packet), start, 6 if field == 16 else 17)


# Records of one packet.


def test_a_plain_record_is_a_view_of_its_packet() -> None:
    view = record(packet := ip(UDP4, udp(b"abc")))
    assert bytes(view[:HEADER_SIZE]) == PLAIN_HEADER
    (only,) = assert_as_naive(view)
    assert bytes(only) == packet
    only[-1] = 0xEE
    assert view[-1] == 0xEE


@EACH_KIND
def test_an_open_checksum_is_completed_in_place_only_once(kind: Kind) -> None:
    start = network_size(kind)
    packet = ip(kind, transport_of(kind, b"odd"))
    view = record(opened(packet, start, kind), flags=NEEDS_CSUM | 2, hdr_len=7, size=9, start=start, field=kind.field)
    (only,) = assert_as_naive(view)
    assert bytes(only) == completed(packet, start, kind)
    assert struct.unpack_from("=BBHHHH", view) == (2, 0, 7, 9, start, kind.field)
    once = bytes(view)
    assert contents(assert_as_naive(view)) == [once[HEADER_SIZE:]]
    assert bytes(view) == once
    only[-1] = 0xEE
    assert view[-1] == 0xEE


@EACH_KIND
def test_an_open_checksum_of_zero_becomes_ffff_in_udp_and_stays_zero_in_tcp(kind: Kind) -> None:
    start = network_size(kind)
    packet = opened(ip(kind, transport_of(kind, b"\0\0")), start, kind)
    packet = with_field(packet, len(packet) - 2, naive_checksum(packet[start:]))
    view = record(packet, flags=NEEDS_CSUM, start=start, field=kind.field)
    (only,) = assert_as_naive(view)
    field = start + kind.field
    assert bytes(only[field : field + 2]) == (b"\xff\xff" if kind.protocol == 17 else b"\0\0")


@pytest.mark.parametrize(("start", "field"), [(20, 6), (26, 0)])
def test_an_open_checksum_at_the_end_of_the_packet_is_completed(start: int, field: int) -> None:
    assert len(assert_as_naive(record(b"\x45" + bytes(27), flags=NEEDS_CSUM, start=start, field=field))) == 1


@pytest.mark.parametrize(
    ("start", "field"),
    [(20, 7), (21, 6), (27, 0), (28, 0), (29, 0), (0xFFFF, 0), (0, 0xFFFF), (0xFFFF, 0xFFFF), (0, 0), (0, 26), (19, 1)],
)
def test_an_open_checksum_beyond_the_end_or_in_the_ip_header_gives_no_packets(start: int, field: int) -> None:
    view = record(b"\x45" + bytes(27), flags=NEEDS_CSUM, start=start, field=field)
    before = bytes(view)
    assert assert_as_naive(view) == []
    assert bytes(view) == before


@EACH_KIND
def test_the_base_record_of_the_contradictions_is_valid(kind: Kind) -> None:
    assert len(assert_as_naive(changed(kind))) == 3


@EACH_KIND
@pytest.mark.parametrize(
    "fields",
    [
        *({"size": 0}, {"flags": 0}, {"flags": 2}, {"flags": 0xFE}),
        *({"gso_type": gso_type} for gso_type in (2, 3, 6, 0x7F, 0x80, 0xFF)),
        *({"start": start} for start in (0, 16, 19, 21, 36, 39, 0x7FFF, 0xFFFF)),
        *({"field": field} for field in (0, 5, 7, 15, 17, 0xFFFF)),
    ],
    ids=str,
)
def test_a_vnet_header_that_contradicts_its_packet_gives_no_packets(kind: Kind, fields: dict[str, int]) -> None:
    assert assert_as_naive(changed(kind, **fields)) == []


@EACH_KIND
def test_another_version_or_protocol_than_the_packet_gives_no_packets(kind: Kind) -> None:
    other_version, other_protocol = {4: 6, 6: 4}[kind.version], {16: 6, 6: 16}[kind.field]
    low = BASE[kind][0] & 0x0F
    assert assert_as_naive(changed(kind, gso_type=kind.gso_type | 0x80)) == []
    assert assert_as_naive(changed(kind, field=other_protocol)) == []
    assert assert_as_naive(changed(kind, with_byte(kind, 0, other_version << 4 | low), start=20)) == []
    for version in (0, 1, 5, 7, 15):
        assert assert_as_naive(changed(kind, with_byte(kind, 0, version << 4 | low))) == []


@pytest.mark.parametrize("kind", [TCP4, UDP4], ids=["tcp4", "udp4"])
@pytest.mark.parametrize("words", [0, 1, 4, 6, 15])
def test_an_ipv4_header_of_another_length_gives_no_packets(kind: Kind, words: int) -> None:
    packet = with_byte(kind, 0, 0x40 + words)
    assert assert_as_naive(changed(kind, packet)) == []
    if words < 5:
        assert assert_as_naive(changed(kind, packet, start=4 * words)) == []


@EACH_TCP
@pytest.mark.parametrize("words", [0, 1, 4, 7, 15])
def test_a_tcp_header_below_20_bytes_or_beyond_the_packet_gives_no_packets(kind: Kind, words: int) -> None:
    # With 6 bytes of payload, a header of 7 words ends beyond the packet.
    assert assert_as_naive(changed(kind, with_byte(kind, network_size(kind) + 12, words << 4))) == []


@EACH_TCP
def test_a_tcp_header_that_leaves_a_payload_gives_packets(kind: Kind) -> None:
    packet = with_byte(kind, network_size(kind) + 12, 6 << 4)
    assert len(assert_as_naive(changed(kind, packet))) == 1
    assert assert_as_naive(changed(kind, packet[:-2])) == []


@EACH_KIND
def test_a_record_cut_anywhere_gives_the_packets_of_its_payload(kind: Kind) -> None:
    payload = len(BASE[kind]) - 6
    for size in range(len(BASE[kind]) + 1):
        packets = assert_as_naive(changed(kind, BASE[kind][:size]))
        assert len(packets) == max(0, size - payload + 1) // 2


@pytest.mark.parametrize("kind", [UDP4, UDP6], ids=["udp4", "udp6"])
@pytest.mark.parametrize(("payload", "size", "count"), [(1, 1, 1), (1, 0xFFFF, 1), (2, 1, 2), (3, 2, 2)])
def test_datagrams_of_few_bytes_split(kind: Kind, payload: int, size: int, count: int) -> None:
    packets = assert_as_naive(superpacket(kind, ip(kind, udp(bytes(payload))), size))
    assert len(packets) == count
    for packet in packets:
        assert_right(bytes(packet), network_size(kind), 17)


@pytest.mark.parametrize("flags", [0, NEEDS_CSUM])
@pytest.mark.parametrize("gso_type", [0, 1, 3, 4, 5, 0x81, 0xFF])
def test_a_record_without_a_packet_gives_none_or_an_empty_one(flags: int, gso_type: int) -> None:
    packets = assert_as_naive(record(b"", flags=flags, gso_type=gso_type, size=1, start=20, field=6))
    assert contents(packets) == ([] if flags or gso_type else [b""])


@property_of(2000)
@given(HOSTILE)
def test_random_records_never_raise(view: memoryview) -> None:
    assert_as_naive(view)


@property_of(1000)
@given(st.sampled_from(KINDS), st.lists(st.tuples(st.integers(0, 79), st.integers(0, 255)), max_size=3), WORDS)
def test_damaged_superpackets_never_raise(kind: Kind, damage: list[tuple[int, int]], cut: int) -> None:
    view = changed(kind)
    for place, value in damage:
        view[place % len(view)] = value
    size = max(HEADER_SIZE, len(view) - cut) if cut < 40 else len(view)
    check_packets([packet for packet in assert_as_naive(view[:size]) if view[1]])
