"""The pcapng format: reading it (draft-ietf-opsawg-pcapng); `writing` is the other way.

Sections, each of its own byte order and with interfaces of its own, are taken apart block by block; blocks
of other kinds are skipped. A block is as long as it says only as far as the file has bytes for it.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from threepipe.capture.cursor import MOST, Cursor, Frame, Told

__all__ = [
    "BYTE_ORDER",
    "ENHANCED_PACKET",
    "EPB_FLAGS",
    "IF_DROPPED",
    "IF_NAME",
    "IF_RECEIVED",
    "IF_TSRESOL",
    "INTERFACE",
    "SECTION",
    "STATISTICS",
    "USER_APPLICATION",
    "open_pcapng",
]

# Types of blocks.
SECTION, INTERFACE, PACKET, SIMPLE_PACKET, STATISTICS, ENHANCED_PACKET = 0x0A0D0D0A, 1, 2, 3, 5, 6
BYTE_ORDER = 0x1A2B3C4D

# Options: their codes mean what they do in one type of block only.
USER_APPLICATION = 4
IF_NAME, IF_TSRESOL, IF_TSOFFSET = 2, 9, 14
EPB_FLAGS = 2
IF_RECEIVED, IF_DROPPED = 4, 5

_SECOND = 1_000_000_000  # Nanoseconds.
_ENDS = 12  # Bytes of a block around its body: type, length, and length again.
_MOST_INTERFACES = 1 << 16
_NO_LINK = -1


class _Interface(NamedTuple):
    link: int
    longest: int
    """Bytes that are kept of a frame, 0 for no limit."""
    units: int = 1_000_000
    """Of time in a second."""
    offset_ns: int = 0


@dataclass(slots=True)
class _Section:
    order: str
    told: Told
    interfaces: list[_Interface] = field(default_factory=list)
    now: int = 0
    """Nanoseconds, as the last frame said: simple packet blocks have no time."""

    def interface(self, number: int) -> _Interface:
        if number >= len(self.interfaces):
            raise ValueError(f"interface {number}, which is not described before,")
        return self.interfaces[number]

    def unpack(self, form: str, data: memoryview | bytes) -> tuple[int, ...]:
        return struct.unpack_from(self.order + form, data)


def open_pcapng(cursor: Cursor, told: Told) -> Iterator[Frame]:
    """Read the first section's header behind its type, and give what follows. Raises `EndpointError`, `CutOff`."""
    return _frames(cursor, _section(cursor, cursor.take(4), told))


def _section(cursor: Cursor, size: bytes, told: Told) -> _Section:
    """Read a section's header behind its type and `size`, which only now can be understood."""
    start = cursor.at - 8
    head = size + cursor.take(4)
    for order in "<>":
        length, magic = struct.unpack(order + "II", head)
        if magic == BYTE_ORDER:
            break
    else:
        raise cursor.wrong("a section without a byte order", start)
    _check_length(cursor, length, 28, start)
    major, _ = struct.unpack(order + "HH", cursor.take(4))
    if major != 1:
        raise cursor.wrong(f"version {major} of pcapng, where there is only 1,", start)
    section = _Section(order, told)
    cursor.skip(length - 20)  # Its own length, which many leave open, and options.
    _check_end(cursor, section, cursor.take(4), length, start)
    return section


def _check_length(cursor: Cursor, length: int, shortest: int, start: int) -> None:
    if length < shortest or length % 4:
        raise cursor.wrong(f"a block of {length} bytes", start)


def _check_end(cursor: Cursor, section: _Section, end: bytes, length: int, start: int) -> None:
    (again,) = section.unpack("I", end)
    if again != length:
        raise cursor.wrong(f"a block of {length} bytes that ends as one of {again}", start)


def _frames(cursor: Cursor, section: _Section) -> Iterator[Frame]:
    while head := cursor.begin(8):
        start = cursor.at - 8
        kind, length = section.unpack("II", head)
        if kind == SECTION:  # It reads the same in both byte orders.
            section = _section(cursor, head[4:], section.told)
            continue
        _check_length(cursor, length, _ENDS, start)
        read = _READERS.get(kind)
        if read is None or length > MOST:
            cursor.skip(length - _ENDS)
            _check_end(cursor, section, cursor.take(4), length, start)
            if kind == INTERFACE:
                raise cursor.wrong(f"an interface described in {length} bytes", start)
            if read is not None:
                yield Frame(section.now, _NO_LINK, memoryview(b""), True)
            continue
        rest = cursor.take(length - 8)
        _check_end(cursor, section, rest[-4:], length, start)
        try:
            frame = read(section, memoryview(rest)[:-4])
        except struct.error:
            raise cursor.wrong(f"a block of {length} bytes, which is too short for its type,", start) from None
        except ValueError as error:
            raise cursor.wrong(str(error), start) from None
        if frame is not None:
            section.now = frame.time_ns
            yield frame


def _interface(section: _Section, body: memoryview) -> None:
    if len(section.interfaces) == _MOST_INTERFACES:
        raise ValueError(f"interface {_MOST_INTERFACES}, which is too many,")
    link, _, longest = section.unpack("HHI", body)
    options = _options(section, body[8:])
    resolution = options.get(IF_TSRESOL, b"\x06")
    offset = options.get(IF_TSOFFSET, bytes(8))
    if len(resolution) != 1 or len(offset) != 8:
        raise ValueError("an interface with a time of another size")
    base = 2 if resolution[0] & 0x80 else 10
    (seconds,) = section.unpack("q", offset)
    section.interfaces.append(_Interface(link, longest, base ** (resolution[0] & 0x7F), seconds * _SECOND))


def _enhanced(section: _Section, body: memoryview) -> Frame:
    number, high, low, size, original = section.unpack("IIIII", body)
    return _frame(section, number, high << 32 | low, body[20:], size, original)


def _obsolete(section: _Section, body: memoryview) -> Frame:
    number, _, high, low, size, original = section.unpack("HHIIII", body)
    return _frame(section, number, high << 32 | low, body[20:], size, original)


def _frame(section: _Section, number: int, time: int, rest: memoryview, size: int, original: int) -> Frame:
    interface = section.interface(number)
    if size > len(rest):
        raise ValueError(f"a packet of {size} bytes in a block with room for {len(rest)}")
    flags = _options(section, rest[size + -size % 4 :]).get(EPB_FLAGS, b"")
    direction = section.unpack("I", flags)[0] & 3 if len(flags) == 4 else 0
    time_ns = time * _SECOND // interface.units + interface.offset_ns
    return Frame(time_ns, interface.link, rest[:size], size >= original, direction)


def _simple(section: _Section, body: memoryview) -> Frame:
    interface = section.interface(0)
    (original,) = section.unpack("I", body)
    size = min(original, interface.longest or original)
    if size > len(body) - 4:
        raise ValueError(f"a packet of {size} bytes in a block with room for {len(body) - 4}")
    return Frame(section.now, interface.link, body[4 : 4 + size], size == original)


def _statistics(section: _Section, body: memoryview) -> None:
    section.unpack("III", body)
    dropped = _options(section, body[12:]).get(IF_DROPPED, b"")
    if len(dropped) == 8:
        (section.told.dropped,) = section.unpack("Q", dropped)


def _options(section: _Section, data: memoryview) -> dict[int, memoryview | bytes]:
    """The options at the end of a block, by code; what follows on one that runs over the end is left out."""
    found: dict[int, memoryview | bytes] = {}
    while len(data) >= 4:
        code, size = section.unpack("HH", data)
        if not code or 4 + size > len(data):
            break
        found[code] = data[4 : 4 + size]
        data = data[4 + size + -size % 4 :]
    return found


_READERS: dict[int, Callable[[_Section, memoryview], Frame | None]] = {
    INTERFACE: _interface,
    PACKET: _obsolete,
    SIMPLE_PACKET: _simple,
    STATISTICS: _statistics,
    ENHANCED_PACKET: _enhanced,
}
