"""ICMP echo: requests and replies verified by independent arithmetic; all other packets get no reply."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rfc1071 import naive_checksum
from threepipe.core.packet import internet_checksum
from threepipe.echo import echo_reply, echo_request

ADDRESSES = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}
FAMILIES = [4, 6]

# Computed by hand from RFC 791, 792 and 4443: identifier 0x1234, sequence 1, payload "abcd".
REQUEST_4 = bytes.fromhex("45000020 00000000 4001 66db 0a000001 0a000002 0800 2104 1234 0001 61626364".replace(" ", ""))
REPLY_4 = bytes.fromhex("45000020 00000000 4001 66db 0a000002 0a000001 0000 2904 1234 0001 61626364".replace(" ", ""))


def checked(packet: bytes) -> bytes:
    """Return the ICMP message of a packet, after a check of its checksums."""
    if packet[0] >> 4 == 4:
        assert naive_checksum(packet[:20]) == 0
        assert naive_checksum(packet[20:]) == 0
        return packet[20:]
    pseudo_header = packet[8:40] + struct.pack("!IHBB", len(packet) - 40, 0, 0, 58)
    assert naive_checksum(pseudo_header + packet[40:]) == 0
    return packet[40:]


def test_request_and_reply_equal_the_hand_made_ones() -> None:
    assert echo_request(*ADDRESSES[4], 0x1234, 1, b"abcd") == REQUEST_4
    assert echo_reply(REQUEST_4) == REPLY_4


@given(st.sampled_from(FAMILIES), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=2000))
def test_a_reply_has_the_identifier_sequence_and_payload_of_its_request(
    version: int, identifier: int, sequence: int, payload: bytes
) -> None:
    request = echo_request(*ADDRESSES[version], identifier, sequence, payload)
    asked = checked(request)
    assert asked[0] == {4: 8, 6: 128}[version]
    assert asked[4:] == struct.pack("!HH", identifier, sequence) + payload
    reply = echo_reply(request)
    assert reply is not None
    answer = checked(reply)
    assert answer[0] == {4: 0, 6: 129}[version]
    assert answer[4:] == asked[4:]
    middle = {4: slice(12, 20), 6: slice(8, 40)}[version]
    addresses = request[middle]
    assert reply[middle] == addresses[len(addresses) // 2 :] + addresses[: len(addresses) // 2]
    assert echo_reply(reply) is None


@given(st.sampled_from(FAMILIES), st.data())
def test_a_damaged_request_gets_no_reply(version: int, data: st.DataObject) -> None:
    request = bytearray(echo_request(*ADDRESSES[version], 1, 2, b"payload!"))
    start = {4: 20, 6: 40}[version]
    place = data.draw(st.integers(start, len(request) - 1))
    request[place] ^= data.draw(st.integers(1, 255))
    assert echo_reply(request) is None


@given(st.binary(max_size=100))
def test_random_bytes_get_no_reply(data: bytes) -> None:
    assert echo_reply(data) is None


def with_header(packet: bytes, offset: int, value: bytes) -> bytes:
    """Return an IPv4 packet with another byte in its header, and the header checksum for it."""
    changed = bytearray(packet)
    changed[offset : offset + len(value)] = value
    changed[10:12] = bytes(2)
    changed[10:12] = internet_checksum(changed[:20]).to_bytes(2, "big")
    return bytes(changed)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(6, b"\x20\x00"), (6, b"\x00\x01"), (9, b"\x11"), (2, b"\x00\x1f"), (0, b"\x44")],
    ids=["first fragment", "later fragment", "UDP", "other length", "short header"],
)
def test_an_ipv4_packet_that_is_not_a_whole_echo_request_gets_no_reply(offset: int, value: bytes) -> None:
    assert echo_reply(with_header(REQUEST_4, offset, value)) is None


def test_a_damaged_ipv4_header_gets_no_reply() -> None:
    assert echo_reply(REQUEST_4[:8] + b"\x41" + REQUEST_4[9:]) is None


def test_ipv6_with_extension_headers_or_truncated_gets_no_reply() -> None:
    request = echo_request(*ADDRESSES[6], 1, 1, b"abcdefgh")
    assert echo_reply(request[:6] + b"\x00" + request[7:]) is None
    assert echo_reply(request[:-1]) is None
    assert echo_reply(request[:4] + b"\x00\x07" + request[6:47]) is None


def test_a_request_between_two_families_raises() -> None:
    with pytest.raises(ValueError, match="different families"):
        echo_request("10.0.0.1", "fd00::1", 1, 1)
