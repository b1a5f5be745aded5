"""Helpers for headers: flows, reply directions and checksums."""

import ipaddress
import struct

import pytest

from tests.support.frames import EACH_KIND, KINDS, TCP4, TCP6, UDP4, UDP6, Kind, frame, with_field
from threepipe import packet
from threepipe.echo import echo_reply, echo_request
from threepipe.packet import Flow

V4 = (b"\x0a\0\0\1", b"\x0a\0\0\2")
V6 = (ipaddress.ip_address("fd00::1").packed, ipaddress.ip_address("fd00::2").packed)
HOP_BY_HOP, ROUTING, FRAGMENT, ESP, AUTHENTICATION, NO_NEXT, DESTINATION = 0, 43, 44, 50, 51, 59, 60


def ipv4(protocol: int, data: bytes, fragment: int = 0, options: bytes = b"") -> bytes:
    size = 20 + len(options)
    header = struct.pack("!BBHHHBBH", 0x40 | size // 4, 0, size + len(data), 7, fragment, 64, protocol, 0)
    return header + b"".join(V4) + options + data


def ipv6(first: int, data: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(data), first, 64) + b"".join(V6) + data


def ports(source: int = 4242, destination: int = 53) -> bytes:
    return struct.pack("!HHHH", source, destination, 8, 0)


@pytest.mark.parametrize("protocol", [6, 17, 33, 132, 136])
def test_the_flow_of_a_protocol_with_ports_has_them(protocol: int) -> None:
    assert packet.flow(ipv4(protocol, ports())) == Flow(*V4, protocol, 4242, 53)
    assert packet.flow(ipv4(protocol, ports(), options=bytes(8))) == Flow(*V4, protocol, 4242, 53)
    assert packet.flow(ipv6(protocol, ports())) == Flow(*V6, protocol, 4242, 53)


def test_the_flow_of_another_protocol_has_no_ports() -> None:
    assert packet.flow(echo_request("10.0.0.1", "10.0.0.2", 1, 1)) == Flow(*V4, 1)
    assert packet.flow(echo_request("fd00::1", "fd00::2", 1, 1)) == Flow(*V6, 58)
    assert packet.flow(ipv6(ESP, bytes(20))) == Flow(*V6, ESP)
    assert packet.flow(ipv6(NO_NEXT, b"")) == Flow(*V6, NO_NEXT)


def test_extension_headers_are_skipped() -> None:
    chain = bytes([DESTINATION, 0]) + bytes(6)
    chain += bytes([AUTHENTICATION, 1]) + bytes(14)
    chain += bytes([17, 4]) + bytes(22)  # RFC 4302: in units of four bytes, minus two.
    assert packet.flow(ipv6(HOP_BY_HOP, chain + ports())) == Flow(*V6, 17, 4242, 53)


@pytest.mark.parametrize(
    ("field", "first", "expected"),
    [
        (0x2000, True, Flow(*V4, 17, 4242, 53, True)),
        (0x2001, False, Flow(*V4, 17, 0, 0, True)),
        (0x0001, False, Flow(*V4, 17, 0, 0, True)),
        (0x4000, True, Flow(*V4, 17, 4242, 53)),  # Only "don't fragment".
    ],
)
def test_fragments_of_ipv4_are_told_apart(field: int, first: bool, expected: Flow) -> None:
    assert packet.flow(ipv4(17, ports() if first else b"data", field)) == expected


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0x0001, Flow(*V6, 17, 4242, 53, True)),
        (0x0009, Flow(*V6, 17, 0, 0, True)),
        (0x0008, Flow(*V6, 17, 0, 0, True)),
        (0x0000, Flow(*V6, 17, 4242, 53)),  # Its own only fragment, RFC 6946.
    ],
)
def test_fragments_of_ipv6_are_told_apart(offset: int, expected: Flow) -> None:
    assert packet.flow(ipv6(FRAGMENT, struct.pack("!BBHI", 17, 0, offset, 7) + ports())) == expected


def test_data_that_is_not_a_whole_ip_packet_has_no_flow() -> None:
    hop_by_hop = bytes([HOP_BY_HOP, 0]) + bytes(6)
    for data in (
        b"",
        b"\x50" + bytes(60),
        ipv4(17, ports())[:22],
        bytes([0x44]) + ipv4(17, ports())[1:],
        bytes([0x4F]) + ipv4(17, b"")[1:],
        ipv6(17, ports())[:42],
        ipv6(HOP_BY_HOP, hop_by_hop[:7]),
        ipv6(HOP_BY_HOP, bytes([17, 5]) + bytes(6)),
        ipv6(HOP_BY_HOP, hop_by_hop * 17 + ports()),
    ):
        assert packet.flow(data) is None
        with pytest.raises(ValueError, match="not a whole IP packet"):
            packet.swap(data)
        with pytest.raises(ValueError, match="not a whole IP packet"):
            packet.fix_checksums(bytearray(data))


def test_a_flow_as_text_names_addresses_protocol_and_ports() -> None:
    assert str(packet.flow(ipv6(17, ports()))) == "fd00::1 > fd00::2 protocol 17 ports 4242 > 53"
    assert str(packet.flow(ipv4(17, b"data", 1))) == "10.0.0.1 > 10.0.0.2 protocol 17 fragment"


@EACH_KIND
def test_a_swapped_packet_has_the_reply_flow_and_right_checksums(kind: Kind) -> None:
    before = frame(kind, b"data")
    after = packet.swap(before)
    there, back = packet.flow(before), packet.flow(after)
    assert there
    assert back == Flow(there.destination, there.source, there.protocol, there.destination_port, there.source_port)
    fixed = bytearray(after)
    packet.fix_checksums(fixed)
    assert fixed == after
    assert packet.swap(after) == before


def test_a_swapped_fragment_keeps_its_data() -> None:
    assert packet.swap(ipv4(17, b"data", 1))[20:] == b"data"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_checksums_are_fixed_whatever_they_were(kind: Kind, size: int) -> None:
    right = frame(kind, b"x" * size)
    transport = (20 if kind.version == 4 else 40) + kind.field
    broken = with_field(right, transport, 0x1234)
    if kind.version == 4:
        broken = with_field(broken, 10, 0x4321)
    fixed = bytearray(broken)
    packet.fix_checksums(memoryview(fixed))
    assert fixed == right


@pytest.mark.parametrize("pair", [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_checksums_of_icmp_are_fixed(pair: tuple[str, str]) -> None:
    right = echo_request(*pair, 1, 2, b"data")
    changed = bytearray(right)
    changed[-4:] = b"DATA"
    packet.fix_checksums(changed)
    assert echo_reply(changed) is not None
    changed[-4:] = b"data"
    packet.fix_checksums(changed)
    assert changed == right


def test_padding_behind_the_ip_length_is_left_out() -> None:
    right = frame(UDP6, b"data")
    padded = bytearray(with_field(right, 46, 0) + b"padding")
    packet.fix_checksums(padded)
    assert padded == right + b"padding"


def test_fragments_and_other_protocols_get_the_header_checksum_alone() -> None:
    for data in (
        ipv4(17, ports(), 0x2000),
        ipv4(132, ports()),
        ipv4(58, bytes(8)),
        ipv6(132, ports()),
        ipv6(1, bytes(8)),
    ):
        fixed = bytearray(data)
        packet.fix_checksums(fixed)
        assert (fixed[10:12] != bytes(2)) == (data[0] == 0x45)
        assert fixed[-8:] == data[-8:]


def test_ipv4_udp_without_a_checksum_stays_without_one() -> None:
    bare = bytearray(with_field(frame(UDP4, b"data"), 26, 0))
    packet.fix_checksums(bare)
    assert bare[26:28] == bytes(2)


def test_a_udp_checksum_of_zero_is_written_as_all_ones() -> None:
    length = 10
    header = bytearray(ipv6(17, struct.pack("!HHHH", 1, 2, length, 0) + bytes(2)))
    packet.fix_checksums(header)
    header[48:50] = header[46:48]  # The data that makes the sum 0.
    packet.fix_checksums(header)
    assert header[46:48] == b"\xff\xff"


def test_a_packet_shorter_than_its_ip_length_raises_value_error() -> None:
    with pytest.raises(ValueError, match="its IP length is"):
        packet.fix_checksums(bytearray(frame(TCP4, b"data")[:-1]))
    with pytest.raises(ValueError, match="ends before the checksum of protocol 6"):
        packet.fix_checksums(bytearray(ipv6(6, ports())))
    with pytest.raises(ValueError, match="its IP length is"):
        packet.fix_checksums(bytearray(with_field(frame(TCP6), 4, 2000)))
