"""Writing pcapng: the blocks of one section with one interface of raw IP packets. Pure functions that return bytes.

Times are in nanoseconds, and each packet has its direction (draft-ietf-opsawg-pcapng).
"""

import struct
from collections.abc import Iterable

from threepipe._version import __version__
from threepipe.backend import CapturedBundle
from threepipe.capture import pcapng
from threepipe.capture.link_types import RAW
from threepipe.core.packet import MAX_PACKET

__all__ = ["file_header", "packet_blocks", "statistics_block"]

_NANOSECONDS = 9  # if_tsresol: the negative power of ten.
_UNKNOWN_LENGTH = -1
_END_OF_OPTIONS = bytes(4)
_HEAD = struct.Struct("=II")  # Type and length of a block.
_LENGTH = struct.Struct("=I")
_PACKET_HEAD = struct.Struct("=IIIIIII")  # Type, length, interface, time in halves, captured and original length.
_PACKET_TAIL = struct.Struct("=HHIHHI")  # epb_flags, the end of options, and the length again.
_PADDING = (b"", bytes(1), bytes(2), bytes(3))
_MAX_OPTION = 0xFFFF


def file_header(interface: str) -> bytes:
    """Return the blocks that a file of packets of one `interface` starts with."""
    section = struct.pack("=IHHq", pcapng.BYTE_ORDER_MAGIC, 1, 0, _UNKNOWN_LENGTH)
    section += _option(pcapng.SHB_USERAPPL, f"threepipe {__version__}".encode()) + _END_OF_OPTIONS
    description = struct.pack("=HHI", RAW, 0, MAX_PACKET)
    # The format wants UTF-8, but the name of an interface may have other bytes.
    description += _option(pcapng.IF_NAME, interface.encode(errors="replace")[:_MAX_OPTION])
    description += _option(pcapng.IF_TSRESOL, bytes([_NANOSECONDS])) + _END_OF_OPTIONS
    return _block(pcapng.SECTION_HEADER, section) + _block(pcapng.INTERFACE_DESCRIPTION, description)


def packet_blocks(bundles: Iterable[CapturedBundle]) -> bytes:
    """Return the enhanced packet blocks of all packets, joined."""
    parts: list[bytes | bytearray | memoryview] = []
    for direction, packets, time_ns in bundles:
        high, low = time_ns >> 32 & 0xFFFFFFFF, time_ns & 0xFFFFFFFF
        for packet in packets:
            size = len(packet)
            padding = _PADDING[-size % 4]
            length = _PACKET_HEAD.size + size + len(padding) + _PACKET_TAIL.size
            parts += (
                _PACKET_HEAD.pack(pcapng.ENHANCED_PACKET, length, 0, high, low, size, size),
                packet,
                padding,
                _PACKET_TAIL.pack(pcapng.EPB_FLAGS, 4, direction, 0, 0, length),
            )
    return b"".join(parts)


def statistics_block(time_ns: int, received: int, dropped: int) -> bytes:
    """Return a block that counts the packets until `time_ns`, and those among them that were dropped."""
    body = struct.pack("=III", 0, time_ns >> 32, time_ns & 0xFFFFFFFF)
    for code, count in ((pcapng.ISB_IFRECV, received), (pcapng.ISB_IFDROP, dropped)):
        body += _option(code, struct.pack("=Q", count))
    return _block(pcapng.INTERFACE_STATISTICS, body + _END_OF_OPTIONS)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + value + _PADDING[-len(value) % 4]


def _block(kind: int, body: bytes) -> bytes:
    length = _HEAD.size + len(body) + _LENGTH.size
    return _HEAD.pack(kind, length) + body + _LENGTH.pack(length)
