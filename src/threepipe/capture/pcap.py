"""The classic pcap format, of both byte orders and resolutions (draft-ietf-opsawg-pcap). Only reading: new files are
pcapng, which has room for directions.
"""

import struct
from collections.abc import Iterator

from threepipe.capture.cursor import MOST, Cursor, Frame
from threepipe.capture.links import knows

__all__ = ["MAGIC", "open_pcap"]

_NANOSECONDS = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}  # Of the unit that parts of a second are counted in.

MAGIC = {struct.pack(order + "I", magic): (order, unit) for order in "<>" for magic, unit in _NANOSECONDS.items()}
"""First four bytes of a file -> its byte order, and nanoseconds of its unit."""

_HEADER = "HHiIII"  # Version (2 and 4), time zone, accuracy, longest frame, link type; less the magic number.
_FRAME = "IIII"  # Seconds, parts of one, bytes in the file and on the link.
_LINK = 0xFFFF  # The upper half of that field says how many bytes of checksum are behind a frame.


def open_pcap(cursor: Cursor, magic: bytes) -> Iterator[Frame]:
    """Read the header behind `magic`, and give what follows. Raises `EndpointError`, `CutOff`."""
    order, unit = MAGIC[magic]
    header = struct.Struct(order + _HEADER)
    major, _, _, _, _, link = header.unpack(cursor.take(header.size))
    if major != 2:
        raise cursor.wrong(f"version {major} of pcap, where there is only 2,", 4)
    link &= _LINK
    if not knows(link):
        raise cursor.wrong(f"link type {link}, of which no IP packets are known,", 20)
    return _frames(cursor, struct.Struct(order + _FRAME), unit, link)


def _frames(cursor: Cursor, header: struct.Struct, unit: int, link: int) -> Iterator[Frame]:
    while data := cursor.begin(header.size):
        seconds, parts, size, original = header.unpack(data)
        if size > MOST:
            raise cursor.wrong(f"a packet of {size} bytes", cursor.at - header.size)
        frame = memoryview(cursor.take(size))
        yield Frame(seconds * 1_000_000_000 + parts * unit, link, frame, size >= original)
