"""The byte layout of Wintun's first driver: a bundle as one block of bytes. Pure functions on bytes.

The layout (March 2019, commit 03479ca): a record is a u32 size in this machine's byte order, 12 bytes of padding and
the packet, padded to a multiple of 16. An exchange, the block that the driver reads or writes in one call, holds at
most 256 records of at most 61440 bytes.
"""

import struct
from collections.abc import Sequence

from threepipe.core.packet import Packet, is_packet
from threepipe.errors import InvalidPacket

__all__ = ["pack", "unpack_from"]

_HEADER = struct.Struct("=I12x")
_ALIGNMENT = 16
_MAX_RECORD = 0xF000
_MAX_PACKETS = 256
_MAX_BYTES = _MAX_PACKETS * _MAX_RECORD
_MAX_PACKET = _MAX_RECORD - _HEADER.size


def pack(packets: Sequence[Packet]) -> bytes:
    """Return one exchange: the records of `packets`, end to end.

    Raises ValueError for more than 256 packets, and `InvalidPacket` for one that is not an IP packet or has more than
    61424 bytes.
    """
    if len(packets) > _MAX_PACKETS:
        raise ValueError(f"{len(packets)} packets; an exchange holds at most {_MAX_PACKETS}: pack slices of the bundle")
    parts: list[Packet] = []
    for index, packet in enumerate(packets):
        size = len(packet)
        if size > _MAX_PACKET or not is_packet(packet):
            raise InvalidPacket(index, f"is not an IP packet of at most {_MAX_PACKET} bytes")
        parts += (_HEADER.pack(size), packet, bytes(-size % _ALIGNMENT))
    return b"".join(parts)


def unpack_from(data: Packet) -> tuple[list[memoryview], int]:
    """Return the packets at the start of `data`, as views of it, and how many bytes they took.

    Stops before a record that is cut short or too long, and after 256 records; in a stream of exchanges, the next one
    starts there. Skips records that are not IP packets. Raises ValueError for more than 15,728,640 bytes.
    """
    view = memoryview(data).cast("B")
    if len(view) > _MAX_BYTES:
        raise ValueError(f"{len(view)} bytes; an exchange holds at most {_MAX_BYTES}")
    packets, offset = [], 0
    for _ in range(_MAX_PACKETS):
        if offset + _HEADER.size > len(view):
            break
        (size,) = _HEADER.unpack_from(view, offset)
        start, end = offset + _HEADER.size, offset + _HEADER.size + size + -size % _ALIGNMENT
        if end - offset > _MAX_RECORD or end > len(view):
            break
        if is_packet(packet := view[start : start + size]):
            packets.append(packet)
        offset = end
    return packets, offset
