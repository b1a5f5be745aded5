"""The packet rule and the Internet checksum, each against an independent implementation."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.rfc1071 import naive_checksum
from threepipe import InvalidPacket
from threepipe.core.packet import MAX_PACKET, check_packets, internet_checksum, is_packet

PROPERTY = settings(derandomize=True, deadline=None, max_examples=500)

# The lengths next to every limit of the rule, and others.
LENGTHS = st.sampled_from([0, 1, 19, 20, 21, 39, 40, 41, 65534, 65535, 65536]) | st.integers(0, 100)
FIRST_BYTES = st.sampled_from([0x45, 0x4F, 0x60, 0x6F, 0x00, 0xF4]) | st.integers(0, 255)
ANY_BYTES = st.builds(lambda first, size: bytes([first] * size), FIRST_BYTES, LENGTHS)


def driver_takes(data: bytes) -> bool:
    """Return True if the driver takes `data`: the rule as its documentation states it, on hexadecimal digits."""
    digits = data.hex()
    if digits.startswith("4"):
        return len(digits) in range(40, 131071)
    return digits.startswith("6") and len(digits) in range(80, 131071)


@PROPERTY
@given(ANY_BYTES)
def test_is_packet_agrees_with_the_rule_of_the_driver(data: bytes) -> None:
    assert is_packet(data) == driver_takes(data)
    assert is_packet(bytearray(data)) == is_packet(memoryview(data)) == driver_takes(data)


@pytest.mark.parametrize(
    ("first", "size", "expected"),
    [
        (0x45, 19, False),
        (0x45, 20, True),
        (0x45, 65535, True),
        (0x45, 65536, False),
        (0x60, 20, False),
        (0x60, 39, False),
        (0x60, 40, True),
        (0x60, 65535, True),
        (0x60, 65536, False),
    ],
)
def test_is_packet_accepts_lengths_from_a_bare_header_to_65535(first: int, size: int, expected: bool) -> None:
    assert is_packet(bytes([first]) + bytes(size - 1)) is expected


def test_is_packet_accepts_only_versions_4_and_6() -> None:
    assert [version for version in range(16) if is_packet(bytes([version << 4]) + bytes(99))] == [4, 6]


def test_is_packet_ignores_all_header_fields_but_the_version() -> None:
    assert is_packet(b"\x40" + b"\xff" * 19)  # A header length of 0, and a total length of 65535.


@PROPERTY
@given(st.lists(ANY_BYTES, max_size=8))
def test_check_packets_names_the_first_invalid_packet(packets: list[bytes]) -> None:
    wrong = [index for index, packet in enumerate(packets) if not driver_takes(packet)]
    if not wrong:
        check_packets(packets)
        return
    with pytest.raises(InvalidPacket, match=f"packet {wrong[0]} ") as caught:
        check_packets(packets)
    assert caught.value.index == wrong[0]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "is empty"),
        (b"\x45" + bytes(65535), f"has 65536 bytes; an IP packet has at most {MAX_PACKET}"),
        (b"\x00" * 60, "has IP version 0"),
        (b"\x45" + bytes(18), "has 19 bytes; an IPv4 header alone has 20"),
        (b"\x60" + bytes(38), "has 39 bytes; an IPv6 header alone has 40"),
    ],
    ids=["empty", "too long", "version 0", "short IPv4", "short IPv6"],
)
def test_check_packets_gives_the_reason(packet: bytes, reason: str) -> None:
    with pytest.raises(InvalidPacket, match=reason):
        check_packets([packet])


@PROPERTY
@given(st.binary(max_size=200), st.integers(0, 1 << 48))
@example(b"", 0)
@example(b"", 0xFFFF)
@example(b"\xff\xff", 0xFFFF)
@example(bytes(65535), 0)
@example(b"\xff" * 65535, 0)
def test_checksum_equals_that_of_the_naive_loop(data: bytes, initial: int) -> None:
    assert internet_checksum(data, initial) == naive_checksum(data, initial)
    assert internet_checksum(data) == naive_checksum(data)


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"\x80", b"\x01"])
def test_checksum_of_one_repeated_byte_equals_that_of_the_naive_loop(byte: bytes) -> None:
    for size in (0, 1, 2, 3, 19, 20, 21, 1500, 65535):
        assert internet_checksum(byte * size) == naive_checksum(byte * size)


def test_checksum_of_the_example_of_rfc_1071_is_the_one_given_there() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


def test_checksum_of_a_header_from_the_wire_is_the_one_sent() -> None:
    header = bytes.fromhex("45000073000040004011 0000 c0a80001c0a800c7")
    assert internet_checksum(header) == 0xB861


@PROPERTY
@given(st.binary(min_size=2, max_size=99))
def test_checksum_over_data_that_holds_its_checksum_is_zero(data: bytes) -> None:
    body = b"\0\0" + data
    complete = internet_checksum(body).to_bytes(2, "big") + data
    assert internet_checksum(complete) == (0 if any(data) else naive_checksum(complete))


@PROPERTY
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_checksum_of_two_parts_equals_that_of_the_whole(first: bytes, second: bytes) -> None:
    padded = first + bytes(len(first) % 2)
    initial = 0xFFFF - internet_checksum(padded)
    assert internet_checksum(second, initial) == internet_checksum(padded + second)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_checksum_accepts_every_kind_of_buffer(kind: type[bytes | bytearray | memoryview]) -> None:
    assert internet_checksum(kind(b"\x12\x34\x56")) == naive_checksum(b"\x12\x34\x56")
