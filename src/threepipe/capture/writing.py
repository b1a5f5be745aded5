"""Writing pcapng: one section with one interface of bare IP packets. Pure functions that make bytes.

draft-ietf-opsawg-pcapng; times are in nanoseconds, and each packet has its direction.
"""

import struct
from collections.abc import Iterable

from threepipe._version import __version__
from threepipe.backend import Seen
from threepipe.capture import pcapng
from threepipe.capture.links import RAW
from threepipe.core.packet import MAX_PACKET

__all__ = ["beginning", "packet_blocks", "statistics_block"]

_NANOSECONDS = 9  # if_tsresol: the negative power of ten.
_UNKNOWN_LENGTH = -1
_END_OF_OPTIONS = bytes(4)
_ENDS = struct.Struct("=II")  # Type and length of a block.
_HEAD = struct.Struct("=IIIIIII")  # Type, length, interface, time in halves, bytes in the file and on the link.
_TAIL = struct.Struct("=HHIHHI")  # epb_flags, the end of options, and the length again.
_PADDING = (b"", bytes(1), bytes(2), bytes(3))


def beginning(interface: str) -> bytes:
    """What a file starts with, for packets of the one `interface`."""
    section = struct.pack("=IHHq", pcapng.BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH)
    section += _option(pcapng.USER_APPLICATION, f"threepipe {__version__}".encode()) + _END_OF_OPTIONS
    described = struct.pack("=HHI", RAW, 0, MAX_PACKET)
    # A name may hold bytes that are no UTF-8, and the format wants nothing else.
    described += _option(pcapng.IF_NAME, interface.encode(errors="replace")[:0xFFFF])
    described += _option(pcapng.IF_TSRESOL, bytes([_NANOSECONDS])) + _END_OF_OPTIONS
    return _block(pcapng.SECTION, section) + _block(pcapng.INTERFACE, described)


def packet_blocks(seen: Iterable[Seen]) -> bytes:
    """An enhanced packet block for each packet, all in one piece."""
    parts: list[bytes | bytearray | memoryview] = []
    for direction, packets, time_ns in seen:
        high, low = time_ns >> 32 & 0xFFFFFFFF, time_ns & 0xFFFFFFFF
        for packet in packets:
            size = len(packet)
            padding = _PADDING[-size % 4]
            length = _HEAD.size + size + len(padding) + _TAIL.size
            parts += (
                _HEAD.pack(pcapng.ENHANCED_PACKET, length, 0, high, low, size, size),
                packet,
                padding,
                _TAIL.pack(pcapng.EPB_FLAGS, 4, direction, 0, 0, length),
            )
    return b"".join(parts)


def statistics_block(time_ns: int, received: int, dropped: int) -> bytes:
    """How many packets there were until then, and how many of them are missing since there was no room."""
    body = struct.pack("=III", 0, time_ns >> 32, time_ns & 0xFFFFFFFF)
    for code, count in ((pcapng.IF_RECEIVED, received), (pcapng.IF_DROPPED, dropped)):
        body += _option(code, struct.pack("=Q", count))
    return _block(pcapng.STATISTICS, body + _END_OF_OPTIONS)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + value + _PADDING[-len(value) % 4]


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + _ENDS.size + 4
    return _ENDS.pack(kind, length) + body + struct.pack("=I", length)
