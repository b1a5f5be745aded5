"""Wrong checksums and lengths: such packets stay as they are, neither repaired nor merged."""

import pytest

from tests.support.coalesce_cases import around_the_third, assert_alone, third
from tests.support.coalescing import completed_again, contents, grouped, of_packets, of_records, views
from tests.support.frames import (
    DONT_FRAGMENT,
    EACH_IPV4,
    EACH_KIND,
    EACH_TCP,
    EACH_UDP,
    UDP4,
    UDP6,
    Kind,
    completed,
    frame,
    frames,
    header_summing_to_zero,
    network_size,
    opened,
    partial,
    summing_to_zero,
    with_bits,
    with_field,
)
from tests.support.rfc1071 import naive_checksum
from threepipe.core.fast import split
from threepipe.core.superpacket import HEADER_SIZE


@EACH_KIND
def test_the_base_packets_of_these_tests_are_merged(kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 5)
    assert packets[2] == third(kind) == around_the_third(kind)[12]
    assert of_packets(packets) == grouped(packets, 5)
    assert of_packets(around_the_third(kind)) == grouped(around_the_third(kind), 25)


@EACH_KIND
@pytest.mark.parametrize("bits", [0x01, 0x80])
@pytest.mark.parametrize("place", [-1, -4])
def test_a_damaged_payload_stays_single(kind: Kind, place: int, bits: int) -> None:
    packet = third(kind)
    assert_alone(with_bits(packet, len(packet) + place, bits), kind)


@EACH_KIND
@pytest.mark.parametrize("place", [0, 1])
def test_a_damaged_checksum_stays_single(kind: Kind, place: int) -> None:
    assert_alone(with_bits(third(kind), network_size(kind) + kind.field + place, 0x10), kind)


@EACH_KIND
def test_an_open_checksum_in_a_record_marked_complete_stays_single(kind: Kind) -> None:
    assert_alone(opened(third(kind), network_size(kind), kind), kind)


@EACH_IPV4
@pytest.mark.parametrize("place", [10, 11])
def test_a_damaged_ipv4_header_checksum_stays_single(kind: Kind, place: int) -> None:
    assert_alone(with_bits(third(kind), place, 0x04), kind)


@EACH_IPV4
def test_an_ipv4_header_without_a_checksum_stays_single(kind: Kind) -> None:
    assert_alone(with_field(third(kind), 10, 0), kind)


@EACH_TCP
def test_a_tcp_checksum_of_ffff_in_place_of_zero_stays_single(kind: Kind) -> None:
    """A receiver takes 0xFFFF for 0. No TCP sends it, and a splitter would give back 0."""
    packets = frames(kind, [b"abcd"] * 5)
    packets[2] = summing_to_zero(third(kind), network_size(kind), kind)
    assert of_packets(packets) == grouped(packets, 5)
    assert_alone(with_field(packets[2], network_size(kind) + 16, 0xFFFF), kind)


@EACH_IPV4
@pytest.mark.parametrize("fragment", [0, DONT_FRAGMENT])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_an_ipv4_header_checksum_of_ffff_in_place_of_zero_stays_single(kind: Kind, place: int, fragment: int) -> None:
    number = int.from_bytes(header_summing_to_zero(frame(kind, fragment=fragment))[4:6], "big")
    packets = frames(kind, [b"abcd"] * 6, identification=number - place, fragment=fragment)
    assert packets[place][10:12] == bytes(2)
    assert of_packets(packets) == grouped(packets, 6)
    packets[place] = with_field(packets[place], 10, 0xFFFF)
    assert of_packets(packets) == grouped(packets, *([place] if place else []), 1, 5 - place)


@EACH_UDP
def test_a_udp_checksum_of_zero_sent_as_ffff_is_merged(kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 5)
    packets[2] = with_field(summing_to_zero(third(kind), network_size(kind), kind), network_size(kind) + 6, 0xFFFF)
    assert completed_again(kind, packets[2]) == packets[2]
    assert of_packets(packets) == grouped(packets, 5)
    assert contents(split(views(of_packets(packets)))) == packets


@EACH_UDP
def test_udp_without_a_checksum_stays_single_among_others(kind: Kind) -> None:
    for wrong in (
        with_field(third(kind), network_size(kind) + 6, 0),
        summing_to_zero(third(kind), network_size(kind), kind),  # The checksum would be 0.
    ):
        packets = frames(kind, [b"abcd"] * 5)
        packets[2] = wrong
        assert of_packets(packets) == grouped(packets, 2, 1, 2)


def without_checksums(kind: Kind, fragment: int = 0) -> list[bytes]:
    payloads = [bytes([number]) * 50 for number in range(9)]
    packets = frames(kind, [*payloads, b"short"], fragment=fragment)
    return [with_field(packet, network_size(kind) + 6, 0) for packet in packets]


@pytest.mark.parametrize("fragment", [0, DONT_FRAGMENT])
def test_ipv4_datagrams_without_a_checksum_are_merged_and_get_one(fragment: int) -> None:
    packets = without_checksums(UDP4, fragment)
    records = of_packets(packets)
    assert records == grouped(packets, 10)
    assert contents(split(views(records))) == [completed_again(UDP4, packet) for packet in packets]
    assert records == of_packets([completed_again(UDP4, packet) for packet in packets])


def test_ipv6_datagrams_without_a_checksum_stay_single() -> None:
    packets = without_checksums(UDP6)
    assert of_packets(packets) == grouped(packets, *[1] * 10)


def test_datagrams_without_a_checksum_and_with_a_wrong_header_stay_single() -> None:
    packets = without_checksums(UDP4)
    packets[3] = with_field(packets[3], 10, 0x1234)
    assert of_packets(packets) == grouped(packets, 3, 1, 6)


def test_an_open_checksum_of_zero_stays_single() -> None:
    records = [memoryview(bytearray(partial(UDP4, packet))) for packet in frames(UDP4, [b"abcd"] * 5)]
    for record in records:
        record[HEADER_SIZE + 26 : HEADER_SIZE + 28] = bytes(2)
    assert of_records(records) == contents(records)


@EACH_UDP
@pytest.mark.parametrize("length", [0, 7, 8, 11, 13, 0xFFFF, 0x010C])
def test_a_udp_length_that_contradicts_the_packet_stays_single(kind: Kind, length: int) -> None:
    start = network_size(kind)
    assert_alone(with_field(third(kind), start + 4, length), kind)
    # Such packets stay single even if the checksum covers the wrong length.
    assert_alone(completed(with_field(third(kind), start + 4, length), start, kind), kind)


@EACH_KIND
@pytest.mark.parametrize("change", [1, -1, 256, -5])
def test_an_ip_length_that_contradicts_the_packet_stays_single(kind: Kind, change: int) -> None:
    place = 2 if kind.version == 4 else 4
    packet = third(kind)
    packet = with_field(packet, place, (int.from_bytes(packet[place : place + 2], "big") + change) % 0x10000)
    if kind.version == 4:
        packet = with_field(with_field(packet, 10, 0), 10, naive_checksum(with_field(packet, 10, 0)[:20]))
    assert_alone(packet, kind)


@EACH_KIND
@pytest.mark.parametrize("padding", [1, 2, 100])
def test_a_padded_packet_stays_single(kind: Kind, padding: int) -> None:
    # Zeros leave the checksum right, except for the length in the pseudo-header.
    assert_alone(third(kind) + bytes(padding), kind)


@EACH_KIND
def test_a_truncated_packet_stays_single(kind: Kind) -> None:
    packet = third(kind)
    for size in range(network_size(kind) + 8, len(packet)):
        assert_alone(packet[:size], kind)


@EACH_TCP
@pytest.mark.parametrize("words", [0, 4, 6, 7, 15])
def test_a_tcp_header_that_is_too_short_or_too_long_stays_single(kind: Kind, words: int) -> None:
    start = network_size(kind)
    packet = third(kind)
    packet = packet[: start + 12] + bytes([words << 4]) + packet[start + 13 :]
    # With 4 bytes of payload, a header of 6 words leaves none.
    assert_alone(completed(packet, start, kind), kind)
