"""Filters of captures: what matches is what matches for tcpdump."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.libpcap import needs_libpcap
from threepipe import InvalidSetting
from threepipe.backend import INBOUND, OUTBOUND, CapturedBundle
from threepipe.capture import expression
from threepipe.capture.expression import PacketFilter
from threepipe.capture.live import LiveCapture
from threepipe.capture.pcapng_blocks import file_header, packet_blocks
from threepipe.capture.writer import CaptureWriter
from threepipe.echo import echo_request


def udp(source: str, target: str, port: int) -> bytes:
    """Return a UDP packet to a port, made from an echo request, without checksums."""
    packet = bytearray(echo_request(source, target, 1, 1, b"hello"))
    start, protocol = (40, 6) if packet[0] >> 4 == 6 else (20, 9)
    packet[protocol] = 17
    packet[start : start + 4] = (4242).to_bytes(2, "big") + port.to_bytes(2, "big")
    return bytes(packet)


PACKETS = [
    echo_request("10.6.7.1", "10.6.7.2", 1, 1, b"hello"),
    echo_request("fd00::1", "fd00::2", 1, 1, b"hello"),
    udp("10.6.7.1", "10.6.7.2", 53),
    udp("10.6.7.1", "192.0.2.1", 123),
    udp("fd00::1", "fd00::2", 53),
    b"\x45" + bytes(19),
]
EXPRESSIONS = [
    "",
    "ip",
    "ip6",
    "icmp or icmp6",
    "udp port 53",
    "port 53 and host 10.6.7.2",
    "dst net 192.0.2.0/24",
    "not udp",
    "greater 50",
    "udp[8:2] = 0x6865 or ip[8] > 1",
]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "packets.pcapng"
    path.write_bytes(file_header("x") + packet_blocks([CapturedBundle(OUTBOUND, tuple(PACKETS), 0)]))
    return path


@needs_libpcap
@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
@pytest.mark.parametrize("text", EXPRESSIONS)
def test_the_packets_that_match_are_those_of_tcpdump(recorded: Path, text: str) -> None:
    command = ["tcpdump", "-n", "-r", str(recorded), *([text] if text else [])]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50).stdout
    assert sum(map(PacketFilter(text), PACKETS)) == len(theirs.splitlines())


@needs_libpcap
@pytest.mark.parametrize(
    "text", ["tcp prt 3", "port", "ether host 1:2:3:4:5:6", "(", "ip and and", "\u0663", "tcp \udcff"]
)
def test_a_wrong_filter_raises_with_the_reason(text: str) -> None:
    with pytest.raises(InvalidSetting, match=r"filter '.*': .*; pcap-filter\(7\) describes filters"):
        PacketFilter(text)


def test_without_libpcap_a_filter_raises_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression, "find_library", lambda name: None)
    with pytest.raises(InvalidSetting, match=r"filters need libpcap.*tcpdump -r - EXPRESSION"):
        PacketFilter("tcp")


class Recorded:
    """A source of captured bundles."""

    dropped = 0
    name = "x"

    def __iter__(self) -> Iterator[list[CapturedBundle]]:
        for packet in PACKETS:
            yield [CapturedBundle(INBOUND, (packet, packet), 7), CapturedBundle(OUTBOUND, (packet,), 7)]

    def stop(self) -> None: ...

    def close(self) -> None: ...


@needs_libpcap
def test_a_capture_writes_and_counts_matching_packets_alone(tmp_path: Path) -> None:
    for count, packets in ((None, 6), (4, 4)):
        path = tmp_path / f"some{count}.pcapng"
        file = CaptureWriter(str(path), "x")
        capture = LiveCapture(Recorded(), file, PacketFilter("udp port 53"))
        capture.run(count)
        file.close(0)
        assert capture.summary.packets == packets
        assert path.read_bytes().count(b"hello") == packets
