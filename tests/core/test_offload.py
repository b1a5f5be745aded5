"""Superpackets against hand-made vectors and a naive splitter; hostile records; bundles of records."""

import pickle
import random
import struct
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
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
from threepipe import Bundle, InvalidPacket
from threepipe.core.fast import measure, split
from threepipe.core.packet import MAX_PACKET, check_packets, is_packet
from threepipe.core.superpacket import HEADER_SIZE, MAX_RECORD, PLAIN_HEADER

WORDS = st.integers(0, 0xFFFF)


def property_of(examples: int) -> settings:
    return settings(derandomize=True, deadline=None, max_examples=examples)


def transport_of(kind: Kind, payload: bytes, sequence: int = 1000) -> bytes:
    return tcp(payload, sequence) if kind.protocol == 6 else udp(payload)


def contents(packets: Iterable[memoryview]) -> list[bytes]:
    return [bytes(packet) for packet in packets]


def assert_right(packet: bytes, start: int, protocol: int) -> None:
    """Every length and checksum of the packet is as a receiver wants it."""
    assert is_packet(packet)
    if packet[0] >> 4 == 4:
        assert naive_checksum(packet[:start]) == 0
        assert int.from_bytes(packet[2:4], "big") == len(packet)
    else:
        assert int.from_bytes(packet[4:6], "big") == len(packet) - 40
    if protocol == 17:
        assert int.from_bytes(packet[start + 4 : start + 6], "big") == len(packet) - start
        assert packet[start + 6 : start + 8] != bytes(2)
    assert naive_checksum(pseudo_header(packet, start, protocol) + packet[start:]) == 0


def assert_as_naive(view: memoryview) -> list[memoryview]:
    """The packets, after everything that is told about them was found to agree."""
    expected = naive_split(bytes(view))
    told = measure([view])[:2]
    packets = split([view])
    assert contents(packets) == expected
    assert told == (len(expected), sum([len(packet) for packet in expected]))
    assert measure([view])[:2] == told
    return packets


# Vectors.


def test_tcp4_by_hand() -> None:
    # Identification 0xFFFF, sequence number 0xFFFFFFFE, FIN and PSH; every sum was worked out by hand.
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


def test_udp6_by_hand() -> None:
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
def test_the_last_segment_may_be_short_and_hdr_len_says_nothing(kind: Kind, hdr_len: int) -> None:
    view = superpacket(kind, ip(kind, transport_of(kind, b"0123456789")), 4, hdr_len=hdr_len)
    start = network_size(kind)
    parts = [b"0123", b"4567", b"89"]
    assert contents(assert_as_naive(view)) == [
        completed(ip(kind, transport_of(kind, part, 1000 + 4 * index), 0x1234 + index), start, kind)
        for index, part in enumerate(parts)
    ]


@EACH_KIND
@pytest.mark.parametrize("size", [4, 5, 8, 0xFFFF])
def test_segments_may_be_full_or_one_alone(kind: Kind, size: int) -> None:
    view = superpacket(kind, ip(kind, transport_of(kind, b"01234567")), size)
    packets = assert_as_naive(view)
    assert [len(packet) - (len(view) - HEADER_SIZE - 8) for packet in packets] == {4: [4, 4], 5: [5, 3]}.get(size, [8])
    for packet in packets:
        assert_right(bytes(packet), network_size(kind), kind.protocol)


@EACH_TCP
def test_tcp_options_are_in_every_segment(kind: Kind) -> None:
    options = bytes.fromhex("0101080a 11223344 55667788 0204ffff")
    view = superpacket(kind, ip(kind, tcp(b"abcde", options=options)), 2)
    assert contents(assert_as_naive(view)) == [
        completed(ip(kind, tcp(part, 1000 + 2 * index, options=options), 0x1234 + index), network_size(kind), kind)
        for index, part in enumerate([b"ab", b"cd", b"e"])
    ]


@EACH_TCP
@pytest.mark.parametrize("payload", [b"abcdef", b"abcde"], ids=["full", "short"])
def test_fin_and_psh_are_on_the_last_segment_and_cwr_on_the_first(kind: Kind, payload: bytes) -> None:
    view = superpacket(kind, ip(kind, tcp(payload, flags=0xFF)), 2)
    others = 0xFF ^ FIN ^ PSH ^ CWR
    flags = [packet[network_size(kind) + 13] for packet in assert_as_naive(view)]
    assert flags == [others | CWR, others, others | FIN | PSH]
    (alone,) = split([superpacket(kind, ip(kind, tcp(payload, flags=ACK | ECE | CWR | FIN)), 6)])
    assert alone[network_size(kind) + 13] == ACK | ECE | CWR | FIN


def test_the_identification_starts_again_after_65535() -> None:
    packets = assert_as_naive(superpacket(UDP4, ip(UDP4, udp(b"abcd"), 0xFFFE), 1))
    assert [bytes(packet[4:6]).hex() for packet in packets] == ["fffe", "ffff", "0000", "0001"]


@EACH_TCP
def test_the_sequence_number_starts_again_after_4_294_967_295(kind: Kind) -> None:
    packets = assert_as_naive(superpacket(kind, ip(kind, tcp(b"abcdef", 0xFFFFFFFD)), 2))
    start = network_size(kind) + 4
    assert [bytes(packet[start : start + 4]).hex() for packet in packets] == ["fffffffd", "ffffffff", "00000001"]


@pytest.mark.parametrize("kind", [TCP6, UDP6], ids=["tcp6", "udp6"])
def test_an_ipv6_extension_header_belongs_to_the_payload_length(kind: Kind) -> None:
    extension = bytes([kind.protocol, 0, 1, 4, 0, 0, 0, 0])
    packet = ip(kind, transport_of(kind, b"abcde"), middle=extension)
    packets = assert_as_naive(superpacket(kind, packet, 3, start=48))
    assert contents(packets) == [
        completed(ip(kind, transport_of(kind, b"abc"), middle=extension), 48, kind),
        completed(ip(kind, transport_of(kind, b"de", 1003), middle=extension), 48, kind),
    ]
    assert [int.from_bytes(packet[4:6], "big") for packet in packets] == [len(packet) - 40 for packet in packets]


@pytest.mark.parametrize("kind", [TCP4, UDP4], ids=["tcp4", "udp4"])
def test_ipv4_options_are_in_every_segment(kind: Kind) -> None:
    options = bytes([0x94, 4, 0, 0])
    view = superpacket(kind, ip(kind, transport_of(kind, b"abcde"), middle=options), 3, start=24)
    assert contents(assert_as_naive(view)) == [
        completed(ip(kind, transport_of(kind, b"abc"), 0x1234, options), 24, kind),
        completed(ip(kind, transport_of(kind, b"de", 1003), 0x1235, options), 24, kind),
    ]


@EACH_KIND
def test_a_segment_whose_checksum_is_zero(kind: Kind) -> None:
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
def test_the_longest_superpacket(kind: Kind, size: int) -> None:
    empty = len(ip(kind, transport_of(kind, b"")))
    payload = random.Random(size).randbytes(MAX_PACKET - empty)
    view = superpacket(kind, ip(kind, transport_of(kind, payload)), size)
    assert len(view) == MAX_RECORD
    packets = assert_as_naive(view)
    assert b"".join([packet[empty:] for packet in packets]) == payload


@EACH_KIND
def test_segments_are_writable_and_apart_from_the_record(kind: Kind) -> None:
    view = superpacket(kind, ip(kind, transport_of(kind, b"abcdef")), 2)
    before = bytes(view)
    for packet in split([view]):
        packet[:] = bytes(len(packet))
    assert bytes(view) == before


# Random superpackets against the naive splitter.


@st.composite
def superpackets(draw: st.DrawFn) -> memoryview:
    """A right header, and a packet that is random wherever the way of splitting does not depend on it."""
    kind = draw(st.sampled_from(KINDS))
    start = draw(st.sampled_from([20, 24, 60] if kind.version == 4 else [40, 48, 88]))
    words = draw(st.integers(5, 15)) if kind.protocol == 6 else 2
    size = draw(st.integers(1, 20) | st.integers(1, 1500))
    payload = size * draw(st.integers(0, 8)) + draw(st.integers(1, size))
    packet = bytearray(random.Random(draw(WORDS)).randbytes(start + 4 * words + payload))
    packet[0] = 0x40 + start // 4 if kind.version == 4 else packet[0] & 0x0F | 0x60
    if kind.protocol == 6:
        packet[start + 12] = packet[start + 12] & 0x0F | words << 4
    hdr_len = draw(WORDS)
    flags = draw(st.sampled_from([NEEDS_CSUM, NEEDS_CSUM | 2, 0xFF]))
    return record(
        packet, flags=flags, gso_type=kind.gso_type, hdr_len=hdr_len, size=size, start=start, field=kind.field
    )


@property_of(400)
@given(superpackets())
def test_superpackets_split_as_the_naive_way_does(view: memoryview) -> None:
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


# Packets that stand for themselves.


def test_a_plain_record_is_a_view_of_its_packet() -> None:
    view = record(packet := ip(UDP4, udp(b"abc")))
    assert bytes(view[:HEADER_SIZE]) == PLAIN_HEADER
    (only,) = assert_as_naive(view)
    assert bytes(only) == packet
    only[-1] = 0xEE
    assert view[-1] == 0xEE


@EACH_KIND
def test_an_open_checksum_is_completed_in_place_and_once(kind: Kind) -> None:
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
def test_a_checksum_that_comes_out_as_zero(kind: Kind) -> None:
    start = network_size(kind)
    packet = opened(ip(kind, transport_of(kind, b"\0\0")), start, kind)
    packet = with_field(packet, len(packet) - 2, naive_checksum(packet[start:]))
    view = record(packet, flags=NEEDS_CSUM, start=start, field=kind.field)
    (only,) = assert_as_naive(view)
    field = start + kind.field
    assert bytes(only[field : field + 2]) == (b"\xff\xff" if kind.protocol == 17 else b"\0\0")


@pytest.mark.parametrize(("start", "field"), [(20, 6), (26, 0)])
def test_a_checksum_may_end_where_the_packet_does(start: int, field: int) -> None:
    assert len(assert_as_naive(record(b"\x45" + bytes(27), flags=NEEDS_CSUM, start=start, field=field))) == 1


@pytest.mark.parametrize(
    ("start", "field"),
    [(20, 7), (21, 6), (27, 0), (28, 0), (29, 0), (0xFFFF, 0), (0, 0xFFFF), (0xFFFF, 0xFFFF), (0, 0), (0, 26), (19, 1)],
)
def test_a_checksum_beyond_the_end_or_in_the_ip_header_gives_no_packets(start: int, field: int) -> None:
    view = record(b"\x45" + bytes(27), flags=NEEDS_CSUM, start=start, field=field)
    before = bytes(view)
    assert assert_as_naive(view) == []
    assert bytes(view) == before


# Records that contradict themselves, and such as only look like it.

BASE = {kind: ip(kind, transport_of(kind, b"abcdef")) for kind in KINDS}


def changed(kind: Kind, packet: bytes | None = None, /, **fields: int) -> memoryview:
    """A right superpacket, but for one thing."""
    right = {
        "flags": NEEDS_CSUM,
        "gso_type": kind.gso_type,
        "size": 2,
        "start": network_size(kind),
        "field": kind.field,
    }
    return record(BASE[kind] if packet is None else packet, **right | fields)


def with_byte(kind: Kind, offset: int, value: int) -> bytes:
    return BASE[kind][:offset] + bytes([value]) + BASE[kind][offset + 1 :]


@EACH_KIND
def test_the_records_below_are_right_but_for_one_thing(kind: Kind) -> None:
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
def test_headers_that_contradict_their_packet(kind: Kind, fields: dict[str, int]) -> None:
    assert assert_as_naive(changed(kind, **fields)) == []


@EACH_KIND
def test_the_other_ways_to_contradict_a_packet(kind: Kind) -> None:
    other_version, other_protocol = {4: 6, 6: 4}[kind.version], {16: 6, 6: 16}[kind.field]
    low = BASE[kind][0] & 0x0F
    assert assert_as_naive(changed(kind, gso_type=kind.gso_type | 0x80)) == []
    assert assert_as_naive(changed(kind, field=other_protocol)) == []
    assert assert_as_naive(changed(kind, with_byte(kind, 0, other_version << 4 | low), start=20)) == []
    for version in (0, 1, 5, 7, 15):
        assert assert_as_naive(changed(kind, with_byte(kind, 0, version << 4 | low))) == []


@pytest.mark.parametrize("kind", [TCP4, UDP4], ids=["tcp4", "udp4"])
@pytest.mark.parametrize("words", [0, 1, 4, 6, 15])
def test_an_ipv4_header_of_another_length(kind: Kind, words: int) -> None:
    packet = with_byte(kind, 0, 0x40 + words)
    assert assert_as_naive(changed(kind, packet)) == []
    if words < 5:
        assert assert_as_naive(changed(kind, packet, start=4 * words)) == []


@EACH_TCP
@pytest.mark.parametrize("words", [0, 1, 4, 7, 15])
def test_a_tcp_header_shorter_than_can_be_or_longer_than_the_packet(kind: Kind, words: int) -> None:
    # With 6 bytes of payload a header of 7 words ends behind them.
    assert assert_as_naive(changed(kind, with_byte(kind, network_size(kind) + 12, words << 4))) == []


@EACH_TCP
def test_a_tcp_header_may_be_as_long_as_leaves_a_payload(kind: Kind) -> None:
    packet = with_byte(kind, network_size(kind) + 12, 6 << 4)
    assert len(assert_as_naive(changed(kind, packet))) == 1
    assert assert_as_naive(changed(kind, packet[:-2])) == []


@EACH_KIND
def test_packets_cut_anywhere(kind: Kind) -> None:
    payload = len(BASE[kind]) - 6
    for size in range(len(BASE[kind]) + 1):
        packets = assert_as_naive(changed(kind, BASE[kind][:size]))
        assert len(packets) == max(0, size - payload + 1) // 2


@pytest.mark.parametrize("kind", [UDP4, UDP6], ids=["udp4", "udp6"])
@pytest.mark.parametrize(("payload", "size", "count"), [(1, 1, 1), (1, 0xFFFF, 1), (2, 1, 2), (3, 2, 2)])
def test_tiny_datagrams(kind: Kind, payload: int, size: int, count: int) -> None:
    packets = assert_as_naive(superpacket(kind, ip(kind, udp(bytes(payload))), size))
    assert len(packets) == count
    for packet in packets:
        assert_right(bytes(packet), network_size(kind), 17)


@pytest.mark.parametrize("flags", [0, NEEDS_CSUM])
@pytest.mark.parametrize("gso_type", [0, 1, 3, 4, 5, 0x81, 0xFF])
def test_a_record_without_a_packet(flags: int, gso_type: int) -> None:
    packets = assert_as_naive(record(b"", flags=flags, gso_type=gso_type, size=1, start=20, field=6))
    assert contents(packets) == ([] if flags or gso_type else [b""])


HOSTILE = st.builds(
    lambda first, rest, **fields: record(first + rest, **fields),
    st.sampled_from([b"", b"\x45", b"\x46", b"\x60", b"\x4f", b"\x40"]),
    st.binary(max_size=100) | st.sampled_from([bytes(100), b"\x50" * 120, b"\xff" * 120]),
    flags=st.sampled_from([NEEDS_CSUM, 0]) | st.integers(0, 255),
    gso_type=st.sampled_from([1, 4, 5, 0, 0x81]) | st.integers(0, 255),
    hdr_len=WORDS,
    size=st.sampled_from([1, 0, 7, 0xFFFF]) | WORDS,
    start=st.sampled_from([20, 40, 24, 0, 60]) | st.integers(0, 130) | WORDS,
    field=st.sampled_from([6, 16]) | st.integers(0, 130) | WORDS,
)


@property_of(2000)
@given(HOSTILE)
def test_random_records_never_fail(view: memoryview) -> None:
    assert_as_naive(view)


@property_of(1000)
@given(st.sampled_from(KINDS), st.lists(st.tuples(st.integers(0, 79), st.integers(0, 255)), max_size=3), WORDS)
def test_damaged_superpackets_never_fail(kind: Kind, damage: list[tuple[int, int]], cut: int) -> None:
    view = changed(kind)
    for place, value in damage:
        view[place % len(view)] = value
    size = max(HEADER_SIZE, len(view) - cut) if cut < 40 else len(view)
    check_packets([packet for packet in assert_as_naive(view[:size]) if view[1]])


# Bundles of records.


def mixed() -> list[memoryview]:
    """A plain packet, three TCP segments, a packet whose checksum is open, two datagrams."""
    return [
        record(ip(UDP4, udp(b"plain"))),
        superpacket(TCP4, ip(TCP4, tcp(b"abcdef")), 2),
        record(opened(ip(UDP6, udp(b"open")), 40, UDP6), flags=NEEDS_CSUM, start=40, field=6),
        superpacket(UDP6, ip(UDP6, udp(b"abc")), 2),
    ]


SIZES = [33, 42, 42, 42, 52, 50, 49]


@pytest.mark.parametrize(
    ("look", "seen"),
    [
        (len, 7),
        (bool, True),
        (lambda bundle: bundle.nbytes, sum(SIZES)),
        (Bundle.check, None),
        (repr, f"<Bundle of 7 packets, {sum(SIZES)} bytes>"),
    ],
    ids=["len", "bool", "nbytes", "check", "repr"],
)
def test_counting_and_checking_leave_records_whole(look: Callable[[Bundle], object], seen: object) -> None:
    bundle = Bundle.of_records(records := mixed())
    before = contents(records)
    assert look(bundle) == seen
    assert bundle.records is records
    assert contents(records) == before
    list(bundle)
    assert look(bundle) == seen


@pytest.mark.parametrize(
    ("look", "seen"),
    [
        (lambda bundle: [len(packet) for packet in bundle], SIZES),
        (lambda bundle: [len(packet) for packet in reversed(bundle)], SIZES[::-1]),
        (lambda bundle: len(bundle[4]), 52),
        (lambda bundle: len(bundle[-1]), 49),
        (lambda bundle: [len(packet) for packet in bundle[1:6:2]], SIZES[1:6:2]),
        (lambda bundle: len(bundle[:0]), 0),
        (lambda bundle: [len(packet) for packet in Bundle.unpack(bundle.pack())], SIZES),
        (lambda bundle: ip(UDP4, b"") in bundle, False),
    ],
    ids=["iterate", "reverse", "index", "index from the end", "slice", "empty slice", "pack", "in"],
)
def test_looking_at_packets_splits_records(look: Callable[[Bundle], object], seen: object) -> None:
    bundle = Bundle.of_records(mixed())
    assert look(bundle) == seen
    assert bundle.records is None
    assert look(bundle) == seen
    assert [len(packet) for packet in bundle] == SIZES


def test_split_records_are_complete_packets() -> None:
    expected = [packet for view in mixed() for packet in naive_split(bytes(view))]
    assert contents(Bundle.of_records(mixed())) == expected
    assert_right(expected[4], 40, 17)


def test_edits_in_place_are_what_later_looks_see() -> None:
    bundle = Bundle.of_records(mixed())
    for index, packet in enumerate(bundle):
        packet[-1] = 0xA0 + index
    edited = list(range(0xA0, 0xA7))
    assert [packet[-1] for packet in bundle] == edited
    assert [packet[-1] for packet in bundle[2:5]] == edited[2:5]
    assert bundle[6][-1] == edited[6]
    bundle[6][-1] = 0
    assert [packet[-1] for packet in Bundle.unpack(bundle.pack())] == [*edited[:6], 0]


def test_releasing_whole_records_gives_their_memory_back() -> None:
    memory = bytearray(superpacket(TCP4, BASE[TCP4], 2))
    bundle = Bundle.of_records([memoryview(memory)])
    assert len(bundle) == 3
    with pytest.raises(BufferError):
        memory.append(0)
    bundle.release()
    memory.append(0)
    for use in (len, list, Bundle.check, lambda released: released.nbytes):
        with pytest.raises(ValueError, match="released"):
            use(bundle)
    assert bundle.records is None
    assert repr(bundle) == "<Bundle released>"
    bundle.release()


def test_releasing_split_records_gives_their_memory_back() -> None:
    memory = bytearray(record(BASE[UDP4]))
    with Bundle.of_records([memoryview(memory), superpacket(TCP4, BASE[TCP4], 2)]) as bundle:
        plain, segment = bundle[0], bundle[1]
        with pytest.raises(BufferError):
            memory.append(0)
    memory.append(0)
    for view in (plain, segment):
        with pytest.raises(ValueError, match="released"):
            bytes(view)


def test_split_superpackets_need_their_record_no_more() -> None:
    memory = bytearray(superpacket(TCP4, BASE[TCP4], 2))
    bundle = Bundle.of_records([memoryview(memory)])
    packets = contents(bundle)
    memory.clear()
    assert contents(bundle) == packets


def test_release_leaves_records_that_others_export() -> None:
    exported, free = bytearray(record(BASE[UDP4])), bytearray(record(BASE[UDP4]))
    views = [memoryview(exported), memoryview(free)]
    bundle = Bundle.of_records(views)
    holder = pickle.PickleBuffer(views[0])
    bundle.release()
    free.append(0)
    with pytest.raises(BufferError):
        exported.append(0)
    holder.release()


WRONG = pytest.mark.parametrize(
    "wrong", [b"", b"\x45" + bytes(18), b"\x60" + bytes(38), b"\x50" + bytes(60)], ids=["empty", "4", "6", "5"]
)


@WRONG
@pytest.mark.parametrize("place", [0, 1, 2])
def test_check_names_the_record_that_is_no_packet(wrong: bytes, place: int) -> None:
    right = [record(BASE[TCP6]), record(BASE[UDP4])]
    bundle = Bundle.of_records([*right[:place], record(wrong), *right[place:]])
    for _ in range(2):
        with pytest.raises(InvalidPacket) as caught:
            bundle.check()
        assert caught.value.index == place
    assert bytes(bundle[place]) == wrong


@WRONG
def test_check_counts_packets_rather_than_records(wrong: bytes) -> None:
    bundle = Bundle.of_records([*mixed(), changed(TCP6, size=0), record(wrong)])
    with pytest.raises(InvalidPacket) as caught:
        bundle.check()
    assert caught.value.index == len(SIZES)
    assert bytes(bundle[len(SIZES)]) == wrong


@pytest.mark.parametrize(
    "contradiction",
    [changed(TCP4, size=0), changed(UDP6, flags=0), record(BASE[TCP4], flags=NEEDS_CSUM, start=20, field=1000)],
    ids=["no size", "no checksum", "checksum beyond the end"],
)
def test_check_drops_records_that_have_no_packets(contradiction: memoryview) -> None:
    bundle = Bundle.of_records([*mixed(), contradiction])
    assert len(bundle) == len(SIZES)
    bundle.check()
    assert bundle.records is None
    assert [len(packet) for packet in bundle] == SIZES


def test_a_bundle_of_contradictions_is_empty() -> None:
    bundle = Bundle.of_records([changed(TCP4, size=0), changed(UDP6, flags=0)])
    assert not bundle
    assert bundle.nbytes == 0
    assert bundle.records
    bundle.check()
    assert list(bundle) == []
    bundle.release()


@property_of(100)
@given(st.lists(superpackets() | HOSTILE, max_size=4))
def test_a_bundle_tells_the_same_before_and_after_looking(records: list[memoryview]) -> None:
    bundle = Bundle.of_records(records)
    told = len(bundle), bundle.nbytes, repr(bundle)
    packets = list(bundle)
    assert told[:2] == (len(packets), sum([len(packet) for packet in packets]))
    assert told == (len(bundle), bundle.nbytes, repr(bundle))
