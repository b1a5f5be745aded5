"""Capture files of every format, read."""

import struct

import pytest

from tests.support.captures import (
    BOTH_ORDERS,
    ETHERNET,
    FRAMES,
    IPV4,
    IPV6,
    MACS,
    MICROSECONDS,
    PACKETS,
    PPP,
    RAW,
    SLL2,
    TIME,
    block,
    enhanced,
    ether_type,
    interface,
    option,
    packets,
    pcap,
    ppp,
    read,
    reader,
    section,
)
from threepipe.backend import UNKNOWN


@BOTH_ORDERS
@pytest.mark.parametrize("nano", [True, False])
def test_classic_files_are_read(order: str, nano: bool) -> None:
    captured = read(pcap(order, PACKETS, nano=nano))
    assert [bytes(packet) for _, packet, _ in captured] == PACKETS
    assert {time for time, _, _ in captured} == {TIME if nano else MICROSECONDS}
    assert {direction for _, _, direction in captured} == {UNKNOWN}


@BOTH_ORDERS
@pytest.mark.parametrize("link", FRAMES)
def test_packets_are_read_from_frames_of_every_link_type(order: str, link: str) -> None:
    number, wrap = FRAMES[link]
    frames = [wrap(packet) for packet in PACKETS]
    assert packets(pcap(order, frames, number)) == PACKETS
    time = option(order, 9, b"\x09")
    blocks = [enhanced(order, content, TIME) for content in frames]
    assert packets(section(order) + interface(order, number, time) + b"".join(blocks)) == PACKETS


@pytest.mark.parametrize(("link", "version"), [(IPV4, 4), (IPV6, 6)])
def test_a_link_of_one_ip_version_gives_packets_of_that(link: int, version: int) -> None:
    found = reader(pcap("<", PACKETS, link))
    kept = [packet for packet in PACKETS if packet[0] >> 4 == version]
    assert [bytes(packet) for _, packet, _ in found] == kept
    assert found.not_ip == len(PACKETS) - len(kept)


def test_frames_without_an_ip_packet_are_counted() -> None:
    hostile = [b"", b"\0", MACS, MACS + b"\x08\x06" + bytes(28), MACS + b"\x08\x00" + PACKETS[1], MACS + b"\x81\x00"]
    hostile += [MACS + b"\x08\x00" + bytes(40), MACS + b"\x86\xdd" + PACKETS[1][:39], MACS + b"\x81\x00\0\0" * 1000]
    hostile += [MACS + b"\x08\x00" + b"\x45\x00\x00\x00".ljust(70_000, b".")]
    found = reader(pcap("<", [*hostile, MACS + ether_type(PACKETS[0]) + PACKETS[0]], ETHERNET))
    assert [bytes(packet) for _, packet, _ in found] == PACKETS[:1]
    assert found.not_ip == len(hostile)


@pytest.mark.parametrize(
    "packet", [PACKETS[0][:2] + b"\0\0" + PACKETS[0][4:], PACKETS[1][:4] + b"\0\0" + PACKETS[1][6:]]
)
def test_a_packet_with_a_length_of_zero_is_read_whole(packet: bytes) -> None:
    assert packets(pcap("<", [MACS + ether_type(packet) + packet], ETHERNET)) == [packet]


def test_truncated_packets_are_counted_and_skipped() -> None:
    classic = reader(pcap("<", PACKETS, cut=1))
    assert (list(classic), classic.truncated) == ([], len(PACKETS))
    blocks = [enhanced("<", packet[:20], 0, more=len(packet) - 20) for packet in PACKETS]
    simple = block("<", 3, struct.pack("<I", len(PACKETS[0])) + PACKETS[0][:20])
    newer = reader(section("<") + interface("<", longest=20) + b"".join(blocks) + simple)
    assert (list(newer), newer.truncated) == ([], len(PACKETS) + 1)


@BOTH_ORDERS
def test_every_type_of_packet_block_is_read_and_others_are_skipped(order: str) -> None:
    time = option(order, 9, b"\x09")
    obsolete = struct.pack(order + "HHIIII", 0, 0, TIME >> 32, TIME & 0xFFFFFFFF, len(PACKETS[1]), len(PACKETS[1]))
    statistics = struct.pack(order + "III", 0, 0, 0) + option(order, 5, struct.pack(order + "Q", 7))
    found = reader(
        section(order)
        + interface(order, options=time)
        + block(order, 0x0BAD, b"of no kind that is known")
        + enhanced(order, PACKETS[0], TIME, options=option(order, 2, struct.pack(order + "I", 2)))
        + block(order, 2, obsolete + PACKETS[1])
        + block(order, 4, b"names of hosts")
        + block(order, 3, struct.pack(order + "I", len(PACKETS[2])) + PACKETS[2])
        + block(order, 5, statistics)
    )
    assert [bytes(packet) for _, packet, _ in found] == PACKETS
    assert found.dropped == 7
    assert found.not_ip == 0


@BOTH_ORDERS
def test_a_simple_block_has_the_time_of_the_block_before(order: str) -> None:
    simple = block(order, 3, struct.pack(order + "I", len(PACKETS[2])) + PACKETS[2])
    data = section(order) + interface(order) + simple + enhanced(order, PACKETS[0], TIME // 1000) + simple
    assert [time for time, _, _ in read(data)] == [0, MICROSECONDS, MICROSECONDS]


@BOTH_ORDERS
@pytest.mark.parametrize(
    ("resolution", "offset", "units", "expected"),
    [
        (None, None, 1_000_000, 1_000_000_000),
        (6, None, 1_000_000, 1_000_000_000),
        (9, 5, 1_000_000_000, 6_000_000_000),
        (0, -3, 4, 1_000_000_000),
        (3, None, 1500, 1_500_000_000),
        (12, None, 1_000_000_000_000, 1_000_000_000),
        (127, None, 2**64 - 1, 0),
        (0x80 | 10, None, 1536, 1_500_000_000),
        (0x80, None, 2, 2_000_000_000),
    ],
)
def test_times_follow_resolution_and_offset(
    order: str, resolution: int | None, offset: int | None, units: int, expected: int
) -> None:
    options = b"" if resolution is None else option(order, 9, bytes([resolution]))
    options += b"" if offset is None else option(order, 14, struct.pack(order + "q", offset))
    data = section(order) + interface(order, options=options + bytes(4)) + enhanced(order, PACKETS[0], units)
    assert [captured.time_ns for captured in read(data)] == [expected]


def test_sections_have_their_own_byte_order_and_interfaces() -> None:
    data = b""
    for order, links in (("<", (ETHERNET, RAW)), (">", (RAW, SLL2)), ("<", (RAW,))):
        data += section(order) + b"".join(interface(order, link) for link in links)
        for number, link in enumerate(links):
            wrap = {RAW: "raw", ETHERNET: "ethernet", SLL2: "sll2"}[link]
            data += b"".join(enhanced(order, FRAMES[wrap][1](packet), 0, number) for packet in PACKETS)
    assert packets(data) == PACKETS * 5


def test_packets_of_unknown_link_types_are_counted_and_skipped() -> None:
    data = (
        section("<")
        + interface("<", 105)
        + interface("<")
        + enhanced("<", PACKETS[0], 0)
        + enhanced("<", PACKETS[1], 0, 1)
    )
    found = reader(data)
    assert [bytes(packet) for _, packet, _ in found] == PACKETS[1:2]
    assert found.not_ip == 1


def test_ppp_frames_without_an_ip_packet_are_counted() -> None:
    frames = [b"", b"\xff\x03", b"\x21", b"\x00\x21", b"\xc0\x21" + PACKETS[0], b"\x00\x57" + PACKETS[0]]
    found = reader(pcap("<", [*frames, ppp(PACKETS[0])], PPP))
    assert [bytes(packet) for _, packet, _ in found] == PACKETS[:1]
    assert found.not_ip == len(frames)


def test_simple_blocks_are_packets_of_their_sections_first_interface() -> None:
    data = b""
    for order, links in (("<", ("pppoe", "raw")), (">", ("sll2", "ethernet"))):
        numbers, wraps = zip(*[FRAMES[link] for link in links], strict=True)
        content = wraps[0](PACKETS[1])
        data += section(order) + b"".join(interface(order, number) for number in numbers)
        data += enhanced(order, wraps[1](PACKETS[0]), 0, 1)
        data += block(order, 3, struct.pack(order + "I", len(content)) + content)
    assert packets(data) == PACKETS[:2] * 2


@BOTH_ORDERS
def test_every_interface_has_its_own_resolution_and_offset(order: str) -> None:
    timings: list[tuple[int, int, int]] = [(6, 0, 1_500_000), (0x80 | 1, 0, 3), (9, -1, 2_500_000_000), (0, 1, 0)]
    data = section(order)
    for resolution, offset, _ in timings:
        options = option(order, 9, bytes([resolution])) + option(order, 14, struct.pack(order + "q", offset))
        data += interface(order, RAW, options + bytes(4))
    data += b"".join([enhanced(order, PACKETS[0], units, number) for number, (_, _, units) in enumerate(timings)])
    assert [time for time, _, _ in read(data)] == [1_500_000_000, 1_500_000_000, 1_500_000_000, 1_000_000_000]
