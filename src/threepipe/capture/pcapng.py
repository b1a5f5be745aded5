"""The pcapng format: its constants, and reading it (draft-ietf-opsawg-pcapng). `pcapng_blocks` writes it.

A file consists of sections, each with a byte order and interfaces of its own. Blocks of unknown types are skipped.
The length that a block claims is trusted only as far as the file has bytes for it.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from threepipe.capture.records import MAX_BLOCK, ByteReader, FileStatistics, PacketRecord

__all__ = [
    "BYTE_ORDER_MAGIC",
    "ENHANCED_PACKET",
    "EPB_FLAGS",
    "IF_NAME",
    "IF_TSRESOL",
    "INTERFACE_DESCRIPTION",
    "INTERFACE_STATISTICS",
    "ISB_IFDROP",
    "ISB_IFRECV",
    "SECTION_HEADER",
    "SHB_USERAPPL",
    "read_pcapng",
]

# Types of blocks.
SECTION_HEADER = 0x0A0D0D0A
INTERFACE_DESCRIPTION, PACKET, SIMPLE_PACKET, INTERFACE_STATISTICS, ENHANCED_PACKET = 1, 2, 3, 5, 6
BYTE_ORDER_MAGIC = 0x1A2B3C4D

# Codes of options; each belongs to one type of block.
SHB_USERAPPL = 4
IF_NAME, IF_TSRESOL, IF_TSOFFSET = 2, 9, 14
EPB_FLAGS = 2
ISB_IFRECV, ISB_IFDROP = 4, 5

_SECOND = 1_000_000_000  # Nanoseconds.
_HEAD, _TAIL = 8, 4  # Bytes of a block before its body (type and length) and behind it (the length again).
_ENDS = _HEAD + _TAIL
_SHORTEST_SECTION_HEADER = 28
_PACKET_FIELDS, _SIMPLE_FIELDS, _INTERFACE_FIELDS, _STATISTICS_FIELDS = 20, 4, 8, 12  # Bytes before data or options.
_DIRECTION = 3  # The bits of epb_flags that store it.
_MAX_INTERFACES = 1 << 16
_NO_LINK_TYPE = -1


class _Interface(NamedTuple):
    link_type: int
    snap_length: int
    """Bytes that the capture keeps of a packet, 0 for all."""
    units: int = 1_000_000
    """Units of time in a second."""
    offset_ns: int = 0


@dataclass(slots=True)
class _Section:
    byte_order: str
    statistics: FileStatistics
    interfaces: list[_Interface] = field(default_factory=list)
    time_ns: int = 0
    """The time of the last packet, which simple packet blocks take, as they have none."""

    def interface(self, number: int) -> _Interface:
        if number >= len(self.interfaces):
            raise ValueError(f"interface {number} without a description")
        return self.interfaces[number]

    def unpack(self, form: str, data: memoryview | bytes) -> tuple[int, ...]:
        return struct.unpack_from(self.byte_order + form, data)


def read_pcapng(file: ByteReader, statistics: FileStatistics) -> Iterator[PacketRecord]:
    """Read the first section header after its type, and return the packets that follow.

    Fills in `statistics` meanwhile. Raises `EndpointError` and `CutShort`.
    """
    return _records(file, _section(file, file.read(4), statistics))


def _section(file: ByteReader, size: bytes, statistics: FileStatistics) -> _Section:
    """Read a section header after its type and `size`, whose byte order only the next field shows."""
    start = file.offset - _HEAD
    head = size + file.read(4)
    for byte_order in "<>":
        length, magic = struct.unpack(byte_order + "II", head)
        if magic == BYTE_ORDER_MAGIC:
            break
    else:
        raise file.error("a section without a byte-order magic", start)
    _check_length(file, length, _SHORTEST_SECTION_HEADER, start)
    major, _ = struct.unpack(byte_order + "HH", file.read(4))
    if major != 1:
        raise file.error(f"pcapng version {major}, expected 1,", start)
    section = _Section(byte_order, statistics)
    file.skip(start + length - _TAIL - file.offset)  # The section's length, which is often unset, and options.
    _check_tail(file, section, file.read(_TAIL), length, start)
    return section


def _check_length(file: ByteReader, length: int, shortest: int, start: int) -> None:
    if length < shortest or length % 4:
        raise file.error(f"a block with the invalid length {length}", start)


def _check_tail(file: ByteReader, section: _Section, tail: bytes, length: int, start: int) -> None:
    (again,) = section.unpack("I", tail)
    if again != length:
        raise file.error(f"a block with the lengths {length} and {again}", start)


def _records(file: ByteReader, section: _Section) -> Iterator[PacketRecord]:
    while head := file.read_or_end(_HEAD):
        start = file.offset - _HEAD
        kind, length = section.unpack("II", head)
        if kind == SECTION_HEADER:  # Its type is a palindrome, the same in both byte orders.
            section = _section(file, head[4:], section.statistics)
            continue
        _check_length(file, length, _ENDS, start)
        parse = _PARSERS.get(kind)
        if parse is None or length > MAX_BLOCK:
            file.skip(length - _ENDS)
            _check_tail(file, section, file.read(_TAIL), length, start)
            if kind == INTERFACE_DESCRIPTION:
                raise file.error(f"an interface description of {length} bytes", start)
            if parse is not None:
                yield PacketRecord(section.time_ns, _NO_LINK_TYPE, memoryview(b""), True)
            continue
        rest = file.read(length - _HEAD)
        _check_tail(file, section, rest[-_TAIL:], length, start)
        try:
            record = parse(section, memoryview(rest)[:-_TAIL])
        except struct.error:
            raise file.error(f"a block of {length} bytes, too short for its type,", start) from None
        except ValueError as error:
            raise file.error(str(error), start) from None
        if record is not None:
            section.time_ns = record.time_ns
            yield record


def _interface_description(section: _Section, body: memoryview) -> None:
    if len(section.interfaces) == _MAX_INTERFACES:
        raise ValueError(f"more than {_MAX_INTERFACES} interfaces")
    link_type, _, snap_length = section.unpack("HHI", body)
    options = _options(section, body[_INTERFACE_FIELDS:])
    resolution = options.get(IF_TSRESOL, b"\x06")
    offset = options.get(IF_TSOFFSET, bytes(8))
    if len(resolution) != 1 or len(offset) != 8:
        raise ValueError("an interface with a time option of the wrong length")
    base = 2 if resolution[0] & 0x80 else 10
    (seconds,) = section.unpack("q", offset)
    section.interfaces.append(_Interface(link_type, snap_length, base ** (resolution[0] & 0x7F), seconds * _SECOND))


def _enhanced_packet(section: _Section, body: memoryview) -> PacketRecord:
    number, high, low, size, original = section.unpack("IIIII", body)
    return _packet_record(section, number, high << 32 | low, body[_PACKET_FIELDS:], size, original)


def _packet(section: _Section, body: memoryview) -> PacketRecord:
    """Parse the obsolete packet block."""
    number, _, high, low, size, original = section.unpack("HHIIII", body)
    return _packet_record(section, number, high << 32 | low, body[_PACKET_FIELDS:], size, original)


def _packet_record(
    section: _Section, number: int, time: int, rest: memoryview, size: int, original: int
) -> PacketRecord:
    interface = section.interface(number)
    if size > len(rest):
        raise ValueError(f"a packet of {size} bytes in a block with room for {len(rest)}")
    flags = _options(section, rest[size + -size % 4 :]).get(EPB_FLAGS, b"")
    direction = section.unpack("I", flags)[0] & _DIRECTION if len(flags) == 4 else 0
    time_ns = time * _SECOND // interface.units + interface.offset_ns
    return PacketRecord(time_ns, interface.link_type, rest[:size], size >= original, direction)


def _simple_packet(section: _Section, body: memoryview) -> PacketRecord:
    interface = section.interface(0)
    (original,) = section.unpack("I", body)
    data = body[_SIMPLE_FIELDS:]
    size = min(original, interface.snap_length or original)
    if size > len(data):
        raise ValueError(f"a packet of {size} bytes in a block with room for {len(data)}")
    return PacketRecord(section.time_ns, interface.link_type, data[:size], size == original)


def _interface_statistics(section: _Section, body: memoryview) -> None:
    section.unpack("III", body)
    dropped = _options(section, body[_STATISTICS_FIELDS:]).get(ISB_IFDROP, b"")
    if len(dropped) == 8:
        (section.statistics.dropped,) = section.unpack("Q", dropped)


def _options(section: _Section, data: memoryview) -> dict[int, memoryview | bytes]:
    """Return the options at the end of a block by code, up to one that would run past the end."""
    found: dict[int, memoryview | bytes] = {}
    while len(data) >= 4:
        code, size = section.unpack("HH", data)
        if not code or 4 + size > len(data):
            break
        found[code] = data[4 : 4 + size]
        data = data[4 + size + -size % 4 :]
    return found


_PARSERS: dict[int, Callable[[_Section, memoryview], PacketRecord | None]] = {
    INTERFACE_DESCRIPTION: _interface_description,
    PACKET: _packet,
    SIMPLE_PACKET: _simple_packet,
    INTERFACE_STATISTICS: _interface_statistics,
    ENHANCED_PACKET: _enhanced_packet,
}
