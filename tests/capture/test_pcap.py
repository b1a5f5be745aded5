"""Capture files: reading files of every format and files that are broken, and writing."""

import errno
import gzip
import io
import random
import shutil
import struct
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import threepipe
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
from threepipe.backend import INBOUND, OUTBOUND, UNKNOWN, CapturedBundle
from threepipe.capture.pcapng_blocks import file_header, packet_blocks, statistics_block
from threepipe.capture.reader import CapturedPacket, CaptureReader
from threepipe.capture.writer import CaptureWriter
from threepipe.core.packet import is_packet


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


# Broken files.

FRESH = section("<") + interface("<")
WHOLE = FRESH + enhanced("<", PACKETS[0], 0)
BROKEN = {
    "empty": (b"", "too short for a capture: it ends at byte 0"),
    "short": (b"\xd4\xc3\xb2", "too short for a capture: it ends at byte 3"),
    "header": (pcap("<", [])[:20], "too short for a capture: it ends at byte 20"),
    "text": (b"GET / HTTP/1.1\r\n", "neither pcap nor pcapng, but 47455420 at byte 0"),
    "version": (pcap("<", [])[:4] + b"\3" + bytes(19), "pcap version 3, expected 2, at byte 4"),
    "link": (pcap("<", [], 105), "link type 105, which is unknown or carries no IP, at byte 20"),
    "no order": (block("<", 0x0A0D0D0A, bytes(16)), "a section without a byte-order magic at byte 0"),
    "section size": (struct.pack("<III", 0x0A0D0D0A, 8, 0x1A2B3C4D), "a block with the invalid length 8 at byte 0"),
    "new version": (block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 2, 0, -1)), "version 2, expected 1"),
}  # fmt: skip
BROKEN_LATER = {
    "pcap size": (pcap("<", PACKETS[:1]) + b"\xff" * 16, "a packet of 4294967295 bytes"),
    "small block": (WHOLE + struct.pack("<II", 6, 8), f"a block with the invalid length 8 at byte {len(WHOLE)}"),
    "odd block": (WHOLE + struct.pack("<II", 6, 33), f"a block with the invalid length 33 at byte {len(WHOLE)}"),
    "ends": (WHOLE + block("<", 99, b"abcd")[:-4] + b"\x20\0\0\0", f"lengths 16 and 32 at byte {len(WHOLE)}"),
    "too short": (WHOLE + block("<", 6, bytes(16)), "a block of 28 bytes, too short for its type, at byte"),
    "too full": (WHOLE + block("<", 6, struct.pack("<IIIII", 0, 0, 0, 99, 99)), "99 bytes in a block with room for 0"),
    "simple": (WHOLE + block("<", 3, struct.pack("<I", 99)), "a packet of 99 bytes in a block with room for 0"),
    "nobody's": (WHOLE + enhanced("<", PACKETS[0], 0, 1), "interface 1 without a description at byte"),
    "time": (WHOLE + interface("<", options=option("<", 9, b"")), "a time option of the wrong length"),
    "interface": (WHOLE + interface("<", options=bytes(2 << 20)), "an interface description of 2097172 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_not_a_capture_raises_with_the_offset(case: str) -> None:
    data, text = BROKEN[case]
    with pytest.raises(threepipe.EndpointError) as refused:
        reader(data)
    assert refused.value.errno == errno.EPROTO
    assert str(refused.value.strerror).startswith("a.pcap: ")
    assert text in str(refused.value.strerror)


@pytest.mark.parametrize("case", BROKEN_LATER)
def test_a_broken_block_raises_after_the_packets_before_it(case: str) -> None:
    data, text = BROKEN_LATER[case]
    found = iter(reader(data))
    assert bytes(next(found).packet) == PACKETS[0]
    with pytest.raises(threepipe.EndpointError, match=r"a\.pcap: ") as refused:
        next(found)
    assert text in str(refused.value.strerror)


def test_a_section_with_65537_interfaces_raises() -> None:
    with pytest.raises(threepipe.EndpointError, match="more than 65536 interfaces"):
        read(section("<") + interface("<") * 65537)


@pytest.mark.parametrize("data", [WHOLE, pcap("<", PACKETS[:1])], ids=["pcapng", "pcap"])
def test_a_truncated_file_gives_the_packets_before(data: bytes) -> None:
    header = len(FRESH) if data is WHOLE else 24
    for size in range(header, len(data)):
        found = reader(data + data[header:size])
        assert [bytes(packet) for _, packet, _ in found] == PACKETS[:1]
        assert found.cut_short == (size > header)


@pytest.mark.parametrize("data", [WHOLE, pcap("<", PACKETS[:1])], ids=["pcapng", "pcap"])
def test_a_file_that_gzip_compressed_is_read(data: bytes) -> None:
    assert packets(gzip.compress(data)) == PACKETS[:1]
    assert packets(gzip.compress(data[:30]) + gzip.compress(data[30:]) + bytes(8)) == PACKETS[:1]


def test_a_compressed_file_that_is_cut_off_gives_the_packets_before() -> None:
    data = WHOLE + b"".join([block("<", 99, random.Random(seed).randbytes(4000)) for seed in range(9)])
    whole = gzip.compress(data)
    found = reader(whole[: len(whole) // 2])
    assert [bytes(packet) for _, packet, _ in found] == PACKETS[:1]
    assert found.cut_short
    with pytest.raises(threepipe.EndpointError, match="too short for a capture"):
        reader(whole[:12])


def test_a_damaged_compressed_file_raises_after_the_packets_before() -> None:
    whole = gzip.compress(WHOLE)
    found = iter(reader(whole[:-8] + bytes(8)))
    assert bytes(next(found).packet) == PACKETS[0]
    with pytest.raises(threepipe.EndpointError, match=r"a\.pcap: CRC check failed") as refused:
        next(found)
    assert refused.value.errno == errno.EPROTO
    with pytest.raises(threepipe.EndpointError, match=r"a\.pcap: Error -3 while decompressing"):
        reader(whole[:10] + b"\xff" * 40)


@pytest.mark.parametrize(
    ("start", "text"),
    [
        ("28b52ffd", "a.pcap: the file is compressed by zstd; decompress it first: zstd -d$"),
        ("04224d18", "compressed by lz4; decompress it first"),
        ("fd377a58", "compressed by xz; decompress it first"),
        ("425a6839", "compressed by bzip2; decompress it first"),
        ("736e6f6f", "in the format of Solaris' snoop; convert it first: editcap -F pcapng"),
        ("474d4255", "in the format of Microsoft's Network Monitor; convert it first"),
    ],
)
def test_a_file_of_another_format_is_named_with_what_to_do(start: str, text: str) -> None:
    with pytest.raises(threepipe.EndpointError, match=text):
        reader(bytes.fromhex(start) + bytes(100))


class Endless:
    """A file that continues for ever after its beginning, and records the largest read."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self.most = 0
        self.left = 1 << 27

    def read(self, size: int, /) -> bytes:
        self.most = max(self.most, size)
        if data := self._file.read(size):
            return data
        self.left -= size
        return bytes(size) if self.left > 0 else b""


@pytest.mark.parametrize("kind", [6, 3, 2, 5, 99, 1])
def test_a_block_that_claims_four_gigabytes_takes_no_memory(kind: int) -> None:
    file = Endless(WHOLE + struct.pack("<II", kind, 0xFFFFFFFC))
    found = CaptureReader(file, "a.pcap")
    assert [bytes(packet) for _, packet, _ in found] == PACKETS[:1]
    assert found.cut_short
    assert file.most <= 1 << 20


def test_a_packet_block_too_long_for_a_packet_is_counted_and_skipped() -> None:
    found = reader(WHOLE + enhanced("<", bytes(2 << 20), 0) + enhanced("<", PACKETS[1], 0))
    assert [bytes(packet) for _, packet, _ in found] == PACKETS[:2]
    assert found.not_ip == 1


class Failing:
    def read(self, size: int, /) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


def test_an_error_of_the_disk_raises_with_the_file() -> None:
    with pytest.raises(threepipe.EndpointError, match=r"a\.pcap: Input/output error") as refused:
        CaptureReader(Failing(), "a.pcap")
    assert refused.value.errno == errno.EIO


ORIGINALS = [
    pcap("<", PACKETS),
    pcap(">", [FRAMES["tagged"][1](packet) for packet in PACKETS], ETHERNET, nano=True),
    section(">") + interface(">", SLL2) + b"".join([enhanced(">", bytes(20) + packet, TIME) for packet in PACKETS]),
    FRESH
    + b"".join(enhanced("<", packet, TIME, options=option("<", 2, b"\1\0\0\0")) for packet in PACKETS)
    + block("<", 3, struct.pack("<I", len(PACKETS[0])) + PACKETS[0])
    + block("<", 5, bytes(12) + option("<", 5, bytes(8))),
]  # fmt: skip


def read_what_is_whole(data: bytes) -> tuple[list[CapturedPacket], str]:
    """Return the packets before the first fault, and the text of the fault."""
    found: list[CapturedPacket] = []
    try:
        found.extend(reader(data))
    except threepipe.EndpointError as error:
        return found, str(error)
    return found, ""


@given(st.data())
def test_mutated_files_give_packets_or_a_fault_of_the_file(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(ORIGINALS)))
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)):
        content[place] = value
    start, end = sorted((data.draw(places), data.draw(places)))
    if data.draw(st.booleans()):
        content[start:end] = data.draw(st.binary(max_size=40))
    found, wrong = read_what_is_whole(bytes(content))
    assert all(is_packet(packet) and direction in range(4) for _, packet, direction in found)
    assert not wrong or wrong.startswith(f"[Errno {errno.EPROTO}] a.pcap: ")


@given(st.binary(max_size=400))
def test_random_bytes_give_packets_or_a_fault_of_the_file(data: bytes) -> None:
    for start in (b"", pcap(">", []), FRESH):
        _, wrong = read_what_is_whole(start + data)
        assert not wrong or wrong.startswith(f"[Errno {errno.EPROTO}] a.pcap: ")


# Writing.

SEEN = [CapturedBundle(OUTBOUND, PACKETS[:2], TIME), CapturedBundle(INBOUND, PACKETS[2:], TIME + 1)]


def test_written_packets_are_read_with_times_and_directions() -> None:
    found = reader(file_header("tp0") + packet_blocks(SEEN) + statistics_block(TIME, 5, 2))
    assert [(time, bytes(packet), direction) for time, packet, direction in found] == [
        (TIME, PACKETS[0], OUTBOUND),
        (TIME, PACKETS[1], OUTBOUND),
        (TIME + 1, PACKETS[2], INBOUND),
    ]
    assert found.dropped == 2


@given(st.lists(st.integers(20, 200), max_size=20), st.integers(0, 2**64 - 1))
def test_packets_of_any_size_and_time_are_read_as_written(sizes: list[int], time: int) -> None:
    packets = [b"\x45".ljust(size, b".") for size in sizes]
    found = reader(file_header("x") + packet_blocks([CapturedBundle(INBOUND, packets, time)]))
    assert [(moment, bytes(packet)) for moment, packet, _ in found] == [(time, packet) for packet in packets]
    assert not found.cut_short


def test_a_file_grows_by_whole_bundles_and_ends_with_the_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(b"something older, and longer than what is written first".ljust(10_000))
    with CaptureWriter(str(path), "tp0") as file:
        assert packets(path.read_bytes()) == []
        file.write(SEEN)
        assert packets(path.read_bytes()) == PACKETS
        file.sink(SEEN[0])
        assert packets(path.read_bytes()) == PACKETS + PACKETS[:2]
        file.close(4)
        file.sink(SEEN[0])
    found = reader(path.read_bytes())
    assert len(list(found)) == 5
    assert found.dropped == 4


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other error texts, and no device that is full")
def test_a_file_that_cannot_be_written_raises_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(threepipe.EndpointError, match="Is a directory") as refused:
        CaptureWriter(str(tmp_path), "tp0")
    assert refused.value.errno == errno.EISDIR
    with pytest.raises(threepipe.EndpointError, match="/dev/full: No space left on device"):
        CaptureWriter("/dev/full", "tp0")


needs_tshark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")


def shown_by_tshark(path: Path, *fields: str) -> list[list[str]]:
    shown = [argument for field in fields for argument in ("-e", field)]
    command = ["tshark", "-r", str(path), "-T", "fields", "-E", "separator=|", "-E", "occurrence=f", *shown]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
    return [line.split("|") for line in done.stdout.splitlines()]


MIXED = ["raw", "null big", "loop", "bsd raw", "openbsd raw", "ppp compressed", "cisco hdlc", "pppoe tagged", "sll2"]
TIMINGS = [(6, 0), (9, 1_600_000_000), (0x80 | 20, 0), (0x80 | 32, 5), (3, 0)]
"""if_tsresol and if_tsoffset."""


@needs_tshark
def test_times_and_packets_of_a_mixed_file_are_those_of_wireshark(tmp_path: Path) -> None:
    data = b""
    for order in "<>":
        data += section(order)
        for number, link in enumerate(MIXED):
            resolution, offset = TIMINGS[number % len(TIMINGS)]
            options = option(order, 9, bytes([resolution])) + option(order, 14, struct.pack(order + "q", offset))
            data += interface(order, FRAMES[link][0], options + bytes(4))
        for number, link in enumerate(MIXED):
            frames = [FRAMES[link][1](packet) for packet in PACKETS]
            data += b"".join([enhanced(order, content, 123_456_789_123 + number, number) for content in frames])
    path = tmp_path / "a.pcapng"
    path.write_bytes(data)
    lines = shown_by_tshark(path, "frame.time_epoch", "ip.len", "ipv6.plen")
    expected = [(Decimal(time), int(ipv4 or 0) or int(ipv6) + 40) for time, ipv4, ipv6 in lines]
    assert [(Decimal(time) / 10**9, len(packet)) for time, packet, _ in read(data)] == expected
    assert len(expected) == 2 * len(MIXED) * len(PACKETS)


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is not installed")
def test_tcpdump_reads_a_written_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with CaptureWriter(str(path), "tun:tp0") as file:
        file.write(SEEN)
    with path.open("rb") as written:  # tcpdump opens no file of another user.
        command = ["tcpdump", "-n", "-r", "-"]
        done = subprocess.run(command, stdin=written, capture_output=True, text=True, check=True, timeout=50)
    assert [line.split()[2] for line in done.stdout.splitlines()] == ["10.0.0.1.443", "fd00::1.443", "10.0.0.1.443"]


@needs_tshark
def test_wireshark_reads_a_written_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with CaptureWriter(str(path), "tun:tp0 \udcff") as file:
        file.write(SEEN)
        file.close(3)
    fields = (
        "frame.time_epoch",
        "frame.packet_flags_direction",
        "frame.len",
        "frame.interface_name",
        "ip.dst",
        "ipv6.dst",
    )
    lines = shown_by_tshark(path, *fields)
    seconds = f"{TIME // 10**9}.{TIME % 10**9}"
    later = f"{TIME // 10**9}.{TIME % 10**9 + 1}"
    assert lines == [
        [seconds, "0x00000002", str(len(PACKETS[0])), "tun:tp0 ?", "10.0.0.2", ""],
        [seconds, "0x00000002", str(len(PACKETS[1])), "tun:tp0 ?", "", "fd00::2"],
        [later, "0x00000001", str(len(PACKETS[2])), "tun:tp0 ?", "10.0.0.2", ""],
    ]
    described = subprocess.run(["capinfos", str(path)], capture_output=True, text=True, check=True, timeout=50).stdout
    assert "Raw IP" in described
    assert "Number of packets:   3" in described
    assert "Number of stat entries = 1" in described
