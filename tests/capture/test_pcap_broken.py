"""Capture files that are broken, compressed or hostile: packets before the fault, and its place."""

import errno
import gzip
import io
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import threepipe
from tests.support.captures import (
    ETHERNET,
    FRAMES,
    PACKETS,
    SLL2,
    TIME,
    block,
    enhanced,
    interface,
    option,
    packets,
    pcap,
    read,
    reader,
    section,
)
from threepipe.capture.reader import CapturedPacket, CaptureReader
from threepipe.core.packet import is_packet

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
