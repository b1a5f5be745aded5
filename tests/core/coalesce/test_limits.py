"""The ends of a run by its flags and its size."""

import pytest

from tests.support.coalescing import grouped, of_packets, views
from tests.support.frames import (
    ACK,
    CWR,
    DONT_FRAGMENT,
    EACH_KIND,
    EACH_TCP,
    EACH_UDP,
    ECE,
    FIN,
    PSH,
    RST,
    SYN,
    URG,
    Kind,
    frame,
    frames,
    icmp,
    naive_merge,
    network_size,
)
from threepipe.core.fast import split
from threepipe.core.packet import MAX_PACKET
from threepipe.core.superpacket import HEADER_SIZE, MAX_RECORD

# PSH and sizes.


@EACH_TCP
def test_psh_ends_a_run(kind: Kind) -> None:
    packets = frames(kind, [b"abcd"] * 5)
    packets[1] = frame(kind, sequence=1004, identification=0x1235, flags=ACK | PSH)
    packets[2] = frame(kind, sequence=1008, identification=0x1236, flags=ACK | PSH)
    assert of_packets(packets) == grouped(packets, 2, 1, 2)
    flags = HEADER_SIZE + network_size(kind) + 13
    assert [found[flags] for found in of_packets(packets)] == [ACK | PSH, ACK | PSH, ACK]


@EACH_KIND
def test_a_short_segment_ends_a_run(kind: Kind) -> None:
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
def test_empty_segments_stay_single(kind: Kind) -> None:
    packets = frames(kind, [b"", b"", b"abcd", b"abcd", b"", b"abcd", b"abcd", b""])
    assert of_packets(packets) == grouped(packets, 1, 1, 2, 1, 2, 1)


@EACH_KIND
@pytest.mark.parametrize("excess", [0, 1])
def test_a_run_is_of_65535_bytes_at_most(kind: Kind, excess: int) -> None:
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
def test_packets_beyond_one_superpacket_begin_another(kind: Kind) -> None:
    packets = frames(kind, [b"x" * 20_000] * 8)
    assert of_packets(packets) == grouped(packets, 3, 3, 2)
    packets = frames(kind, [b"x" * 1400] * 60)
    assert of_packets(packets) == grouped(packets, 46, 14)


@EACH_TCP
def test_a_run_of_300_tcp_segments_is_one_record(kind: Kind) -> None:
    packets = frames(kind, [b"x"] * 300)
    assert of_packets(packets) == grouped(packets, 300)


@EACH_UDP
@pytest.mark.parametrize("fragment", [0, DONT_FRAGMENT])
@pytest.mark.parametrize("payload", [b"x", b"four"])
def test_a_run_is_of_64_datagrams_at_most(kind: Kind, payload: bytes, fragment: int) -> None:
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
def test_a_packet_of_almost_65535_bytes_is_merged_only_if_both_fit(kind: Kind) -> None:
    headers = network_size(kind) + (20 if kind.protocol == 6 else 8)
    packets = frames(kind, [b"x" * (MAX_PACKET - headers), b"y"])
    assert of_packets(packets) == grouped(packets, 1, 1)
    packets = frames(kind, [b"x" * (MAX_PACKET - headers - 1), b"y"])
    assert of_packets(packets) == grouped(packets, 2)


# Flags.


@EACH_TCP
@pytest.mark.parametrize("flags", [0, PSH, SYN, *[ACK | flag for flag in (FIN, SYN, RST, URG, ECE, CWR, ECE | CWR)]])
def test_a_packet_with_other_flags_stays_single_and_ends_the_run(kind: Kind, flags: int) -> None:
    for extra in (0, PSH):
        packets = frames(kind, [b"abcd"] * 5)
        packets[2] = frame(kind, sequence=1008, identification=0x1236, flags=flags | extra)
        if flags | extra != ACK | PSH:
            assert of_packets(packets) == grouped(packets, 2, 1, 2)
            packets[2:4] = frames(kind, [b"abcd"] * 2, sequence=1008, identification=0x1236, flags=flags | extra)
            assert of_packets(packets) == grouped(packets, 2, 1, 1, 1)


@EACH_TCP
@pytest.mark.parametrize("reserved", [1, 2, 4, 8, 15])
def test_packets_with_reserved_tcp_bits_stay_single(kind: Kind, reserved: int) -> None:
    packets = frames(kind, [b"abcd"] * 4, reserved=reserved)
    assert of_packets(packets) == grouped(packets, 1, 1, 1, 1)
    packets[:2] = frames(kind, [b"abcd"] * 2)
    assert of_packets(packets) == grouped(packets, 2, 1, 1)


@EACH_TCP
def test_a_packet_without_payload_ends_the_run(kind: Kind) -> None:
    packets = frames(kind, [b"abcd", b"abcd", b"", b"abcd", b"abcd"])
    assert of_packets(packets) == grouped(packets, 2, 1, 2)
