"""Capture files made by plain steps, and a reader for them."""

import io
import struct
from collections.abc import Callable, Sequence

import pytest

from tests.support.frames import TCP4, UDP6, frame
from threepipe.capture.reader import CapturedPacket, CaptureReader

PACKETS = [frame(TCP4, b"one"), frame(UDP6, b"another"), frame(TCP4, b"a third")]
TIME = 1_700_000_000_123_456_789
MICROSECONDS = TIME // 1000 * 1000
BOTH_ORDERS = pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])

NULL, ETHERNET, RAW, LOOP, SLL, IPV4, IPV6, SLL2 = 0, 1, 101, 108, 113, 228, 229, 276
PPP, BSD_RAW, OPENBSD_RAW, PPP_HDLC, PPP_ETHER, C_HDLC, PPP_PPPD, PPP_WITH_DIR = 9, 12, 14, 50, 51, 104, 166, 204
MACS = bytes(12)


def ether_type(packet: bytes) -> bytes:
    return b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"


def ppp(packet: bytes) -> bytes:
    return (b"\x00\x21" if packet[0] >> 4 == 4 else b"\x00\x57") + packet


def pppoe(packet: bytes) -> bytes:
    return b"\x11\x00\x00\x07" + (len(packet) + 2).to_bytes(2, "big") + ppp(packet)


def pcap(order: str, frames: Sequence[bytes], link: int = RAW, *, nano: bool = False, cut: int = 0) -> bytes:
    """Return a classic pcap file; it lacks the last `cut` bytes of each frame."""
    magic, unit = (0xA1B23C4D, 1) if nano else (0xA1B2C3D4, 1000)
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    for content in frames:
        size = len(content) - cut
        data += struct.pack(order + "IIII", TIME // 10**9, TIME % 10**9 // unit, size, len(content)) + content[:size]
    return data


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + option(order, 1, b"a comment"))


def interface(order: str, link: int = RAW, options: bytes = b"", longest: int = 0) -> bytes:
    return block(order, 1, struct.pack(order + "HHI", link, 0, longest) + options)


def enhanced(order: str, content: bytes, time: int, number: int = 0, options: bytes = b"", more: int = 0) -> bytes:
    head = struct.pack(order + "IIIII", number, time >> 32, time & 0xFFFFFFFF, len(content), len(content) + more)
    return block(order, 6, head + content + bytes(-len(content) % 4) + options)


def reader(data: bytes, *, repair: bool = False) -> CaptureReader:
    return CaptureReader(io.BytesIO(data), "a.pcap", repair=repair)


def read(data: bytes) -> list[CapturedPacket]:
    return list(reader(data))


def packets(data: bytes) -> list[bytes]:
    return [bytes(captured.packet) for captured in read(data)]


FRAMES: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "raw": (RAW, lambda packet: packet),
    "null little": (NULL, lambda packet: bytes([2 if packet[0] >> 4 == 4 else 30, 0, 0, 0]) + packet),
    "null big": (NULL, lambda packet: bytes([0, 0, 0, 2 if packet[0] >> 4 == 4 else 24]) + packet),
    "loop little": (LOOP, lambda packet: bytes([2 if packet[0] >> 4 == 4 else 30, 0, 0, 0]) + packet),
    "bsd raw": (BSD_RAW, lambda packet: packet),
    "openbsd raw": (OPENBSD_RAW, lambda packet: packet),
    "ppp": (PPP, ppp),
    "ppp framed": (PPP, lambda packet: b"\xff\x03" + ppp(packet)),
    "ppp compressed": (PPP, lambda packet: ppp(packet)[1:]),
    "ppp hdlc": (PPP_HDLC, lambda packet: b"\xff\x03" + ppp(packet)),
    "ppp hdlc of cisco": (PPP_HDLC, lambda packet: b"\x0f\x00" + ether_type(packet) + packet),
    "cisco hdlc": (C_HDLC, lambda packet: b"\x8f\x00" + ether_type(packet) + packet),
    "ppp in": (PPP_PPPD, lambda packet: b"\x00\x03" + ppp(packet)),
    "ppp out": (PPP_PPPD, lambda packet: b"\x01\x03" + ppp(packet)),
    "ppp with direction": (PPP_WITH_DIR, lambda packet: b"\x01" + ppp(packet)),
    "ppp framed with direction": (PPP_WITH_DIR, lambda packet: b"\x00\xff\x03" + ppp(packet)),
    "pppoe session": (PPP_ETHER, pppoe),
    "pppoe": (ETHERNET, lambda packet: MACS + b"\x88\x64" + pppoe(packet)),
    "pppoe padded": (ETHERNET, lambda packet: MACS + b"\x88\x64" + pppoe(packet) + bytes(18)),
    "pppoe tagged": (ETHERNET, lambda packet: MACS + b"\x81\x00\x00\x07\x88\x64" + pppoe(packet)),
    "loop": (LOOP, lambda packet: bytes([0, 0, 0, 2 if packet[0] >> 4 == 4 else 28]) + packet),
    "ethernet": (ETHERNET, lambda packet: MACS + ether_type(packet) + packet),
    "padded": (ETHERNET, lambda packet: MACS + ether_type(packet) + packet + bytes(18)),
    "tagged": (ETHERNET, lambda packet: MACS + b"\x88\xa8\x00\x01\x81\x00\x00\x02" + ether_type(packet) + packet),
    "sll": (SLL, lambda packet: bytes(14) + ether_type(packet) + packet),
    "sll tagged": (SLL, lambda packet: bytes(14) + b"\x81\x00\x00\x07" + ether_type(packet) + packet),
    "sll2": (SLL2, lambda packet: ether_type(packet) + bytes(18) + packet),
}
