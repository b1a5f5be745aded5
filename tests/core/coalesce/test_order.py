"""Sequence numbers and identifications of packets that follow on each other."""

import socket

import pytest

from tests.support.coalesce_cases import around_the_third
from tests.support.coalescing import contents, grouped, of_packets, views
from tests.support.frames import DONT_FRAGMENT, EACH_IPV4, EACH_TCP, RESERVED, Kind, frame, frames, with_field
from threepipe.core.fast import split


@EACH_TCP
@pytest.mark.parametrize("gap", [1, -1, 4, -4, 2**31, 2**16])
def test_a_gap_begins_another_run(kind: Kind, gap: int) -> None:
    packets = frames(kind, [b"abcd"] * 4)
    packets[2:] = frames(kind, [b"abcd"] * 2, sequence=1008 + gap, identification=0x1236)
    assert of_packets(packets) == grouped(packets, 2, 2)


@EACH_TCP
def test_packets_out_of_order_stay_single(kind: Kind) -> None:
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
def test_a_run_continues_when_sequence_numbers_wrap(kind: Kind, sequence: int) -> None:
    packets = frames(kind, [b"abcd"] * 3, sequence=sequence)
    assert of_packets(packets) == grouped(packets, 3)


@EACH_IPV4
@pytest.mark.parametrize("fragment", [0, RESERVED])
@pytest.mark.parametrize("first", [0, 0x1234, 0xFFFE, 0xFFFF])
def test_a_run_continues_when_identifications_count_up_and_wrap(kind: Kind, first: int, fragment: int) -> None:
    packets = frames(kind, [b"abcd"] * 3, identification=first, fragment=fragment)
    assert of_packets(packets) == grouped(packets, 3)
    assert contents(split(views(of_packets(packets)))) == packets
    for fields in ({"identification": (first - 12) % 0x10000}, {"identification": first}):
        train = frames(kind, [*[b"abcd"] * 30, b"z"], fragment=fragment, **fields)
        assert of_packets(train) == grouped(train, 31)
        assert contents(split(views(of_packets(train)))) == train


@EACH_IPV4
@pytest.mark.parametrize("fragment", [0, DONT_FRAGMENT])
def test_a_run_continues_when_header_checksums_wrap(kind: Kind, fragment: int) -> None:
    """Header checksums count down as identifications count up: 2, 1, 0, 0xFFFE. 0xFFFF after 0 is wrong."""
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
def test_a_header_checksum_that_counts_down_while_the_identification_wraps_ends_the_run(
    kind: Kind, first: int, fragment: int
) -> None:
    """From identification 0xFFFF to 0 the sum stays the same, as both mean 0: one less is wrong there."""
    packets = frames(kind, [b"abcd"] * 30, identification=first, fragment=fragment)
    right = 0x10000 - first
    for index in range(right, 30):
        checksum = int.from_bytes(packets[index][10:12], "big")
        packets[index] = with_field(packets[index], 10, (checksum - 1) % 0xFFFF)
    assert of_packets(packets) == grouped(packets, right, *[1] * (30 - right))


@EACH_IPV4
@pytest.mark.parametrize("fragment", [0, RESERVED])
@pytest.mark.parametrize("gap", [0, 2, 0xFFFF, 0x101])
def test_an_identification_that_does_not_follow_begins_another_run(kind: Kind, gap: int, fragment: int) -> None:
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
def test_packets_with_dont_fragment_have_constant_or_counting_identifications(
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
