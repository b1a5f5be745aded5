"""Reading the classic pcap format, of both byte orders and time resolutions (draft-ietf-opsawg-pcap).

New files are written as pcapng, which can store directions.
"""

import struct
from collections.abc import Iterator

from threepipe.capture.link_types import is_known
from threepipe.capture.records import MAX_BLOCK, ByteReader, PacketRecord

__all__ = ["MAGIC", "read_pcap"]

_UNITS = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}  # Magic number -> nanoseconds in a unit of its times.

MAGIC = {struct.pack(order + "I", magic): (order, unit) for order in "<>" for magic, unit in _UNITS.items()}
"""The first four bytes of a file -> its byte order, and the nanoseconds in a unit of its times."""

_MAGIC_SIZE = 4
_HEADER = "HHiIII"  # Version (2 and 4), two reserved fields, snapshot length, link type; the magic number is before it.
_LINK_TYPE_OFFSET = 20
_RECORD = "IIII"  # Seconds, units of a fraction of one, captured length, original length.
_LINK_TYPE = 0xFFFF  # The upper half of that field is for the length of a frame check sequence.


def read_pcap(file: ByteReader, magic: bytes) -> Iterator[PacketRecord]:
    """Read the file header after `magic`, and return the records that follow. Raises `EndpointError`, `CutShort`."""
    order, unit = MAGIC[magic]
    header = struct.Struct(order + _HEADER)
    major, _, _, _, _, link_type = header.unpack(file.read(header.size))
    if major != 2:
        raise file.error(f"pcap version {major}, expected 2,", _MAGIC_SIZE)
    link_type &= _LINK_TYPE
    if not is_known(link_type):
        raise file.error(f"link type {link_type}, which is unknown or carries no IP,", _LINK_TYPE_OFFSET)
    return _records(file, struct.Struct(order + _RECORD), unit, link_type)


def _records(file: ByteReader, header: struct.Struct, unit: int, link_type: int) -> Iterator[PacketRecord]:
    while data := file.read_or_end(header.size):
        seconds, units, size, original = header.unpack(data)
        if size > MAX_BLOCK:
            raise file.error(f"a packet of {size} bytes", file.offset - header.size)
        packet = memoryview(file.read(size))
        yield PacketRecord(seconds * 1_000_000_000 + units * unit, link_type, packet, size >= original)
