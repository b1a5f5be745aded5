"""Capture files that threepipe writes, as it and other programs read them."""

import errno
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
    FRAMES,
    PACKETS,
    TIME,
    enhanced,
    interface,
    option,
    packets,
    read,
    reader,
    section,
)
from threepipe.backend import INBOUND, OUTBOUND, CapturedBundle
from threepipe.capture.pcapng_blocks import file_header, packet_blocks, statistics_block
from threepipe.capture.writer import CaptureWriter

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
