"""Completing packets that were captured on the machine that sent them, before its network card completed them.

A system hands its card packets whose checksum is open (Linux: CHECKSUM_PARTIAL), TCP superpackets to be cut (TSO), and
headers without a length. A capture shows them as they are then. A receiver may also show superpackets, which its
system put together (GRO, LRO). This file knows no link layer and no format.

Values that no sender leaves open stay as they are, as the capture may show a fault that was on the wire. Only the
checksums of a superpacket are computed in any case, as those of its packets are not in the capture.
"""

from dataclasses import dataclass
from typing import NamedTuple

from threepipe.core.fast import flow_fields, internet_checksum, split
from threepipe.core.packet import MAX_PACKET, MIN_HEADER
from threepipe.core.superpacket import (
    CHECKSUM_OFFSET,
    GSO_TCPV4,
    GSO_TCPV6,
    HEADER,
    NEEDS_CSUM,
    TCP,
    UDP,
)
from threepipe.filters.clamp import mss_values

__all__ = ["Repairer", "Repairs"]

_LENGTH = {4: 2, 6: 4}
_CHECKSUM = 10  # In the IPv4 header.
_IDENTIFICATION = 4
_SEQUENCE, _DATA_OFFSET, _FLAGS = 4, 12, 13  # In the TCP header.
_TCP_HEADER, _UDP_HEADER = 20, 8  # Bytes without options.
_FIN_PSH, _SYN, _CWR = 0x09, 0x02, 0x80
_HOP_BY_HOP, _NO_NEXT_HEADER = 0, 59
_JUMBO = b"\x00\xc2\x04"
"""The option of RFC 2675 alone in a hop-by-hop header, behind the next header: its size, and the option's start."""
_JUMBO_HEADER = 8
_USUAL_MTU = 1500
_LONGEST_HEADERS = 512  # Bytes; more than any real superpacket has.
_LEAST_MSS = 88  # As Linux's TCP_MIN_MSS, so that a file cannot ask for millions of packets.
_MAX_CONNECTIONS = 4096  # More connections forget the MSS of the oldest ones.

_Connection = tuple[bytes, bytes, int, int]


@dataclass(slots=True)
class Repairs:
    """The counts of a `Repairer`, in packets of the capture."""

    checksums: int = 0
    """Packets with an open checksum, which was computed."""
    lengths: int = 0
    """Packets without an IP length, which was filled in."""
    superpackets: int = 0
    """TCP superpackets, which were split."""
    segments: int = 0
    """The packets into which they were split."""
    wrong: int = 0
    """Packets with another wrong checksum, which were left as they are."""


class _Layout(NamedTuple):
    """The offsets of the parts of a packet, in bytes from its start."""

    version: int
    connection: _Connection
    protocol: int
    fragment: bool
    start: int
    """The header of `protocol`."""
    end: int
    """The end by the IP header; bytes may follow."""


class Repairer:
    """Completes the packets of one capture, in their order: it learns the MSS of TCP connections from their SYNs."""

    def __init__(self) -> None:
        self.repairs = Repairs()
        self._mss: dict[_Connection, int] = {}

    def complete(self, packet: memoryview) -> list[memoryview]:
        """Return the packets that `packet` was on the wire; itself if there is nothing to complete.

        It may be longer than an IP packet can be (BIG TCP). If it then is not TCP, there are none.
        """
        whole = _with_length(packet)
        layout = _layout(packet if whole is None else whole)
        if layout is None:  # Its headers are cut off or contradict it.
            return [packet] if len(packet) <= MAX_PACKET else []
        packets = self._completed(packet if whole is None else whole, layout)
        self.repairs.lengths += bool(whole is not None and packets)
        return packets

    def _completed(self, packet: memoryview, layout: _Layout) -> list[memoryview]:
        if layout.protocol == TCP and not layout.fragment and layout.end - layout.start >= _TCP_HEADER:
            payload = layout.start + (packet[layout.start + _DATA_OFFSET] >> 4) * 4
            size = self._segment_size(packet, layout, payload)
            if layout.start + _TCP_HEADER <= payload <= _LONGEST_HEADERS and layout.end - payload > size:
                segments = _segments(packet, layout, payload, size)
                self.repairs.superpackets += 1
                self.repairs.segments += len(segments)
                return segments
        return [self._with_checksums(packet, layout)] if len(packet) <= MAX_PACKET else []

    def _segment_size(self, packet: memoryview, layout: _Layout, payload: int) -> int:
        """Return the most bytes of payload that a packet of this connection had on the wire.

        Without its SYNs that is what fits the usual MTU. The MSS does not count options (RFC 6691).
        """
        source, destination, source_port, destination_port = layout.connection
        if packet[layout.start + _FLAGS] & _SYN:
            for offset in mss_values(packet[: layout.end], layout.start):
                if len(self._mss) >= _MAX_CONNECTIONS:
                    del self._mss[next(iter(self._mss))]
                self._mss[layout.connection] = max(int.from_bytes(packet[offset : offset + 2]), _LEAST_MSS)
        ends = layout.connection, (destination, source, destination_port, source_port)
        known = [self._mss[end] for end in ends if end in self._mss]
        usual = _USUAL_MTU - layout.start - _TCP_HEADER
        options = payload - layout.start - _TCP_HEADER
        return min(min(known, default=usual) - options, MAX_PACKET - payload)

    def _with_checksums(self, packet: memoryview, layout: _Layout) -> memoryview:
        """Return `packet`, or a copy whose open checksums are computed. Any other wrong one is counted."""
        found = [_header_checksum(packet), _transport_checksum(packet, layout)]
        opened = [checksum for checksum in found if checksum is not None and checksum.open]
        if any(checksum is not None and not checksum.open for checksum in found):
            self.repairs.wrong += 1
        if not opened:
            return packet
        self.repairs.checksums += 1
        copy = memoryview(bytearray(packet))
        for _, offset, value in opened:
            copy[offset : offset + 2] = value.to_bytes(2)
        return copy


class _WrongChecksum(NamedTuple):
    open: bool
    """True if a sender leaves such a value to its card."""
    offset: int
    right: int


def _with_length(packet: memoryview) -> memoryview | None:
    """Return a copy of `packet` with its IP length, if it has none; else None.

    A copy that is too long for the field keeps 0, to be split.
    """
    version = packet[0] >> 4
    offset = _LENGTH[version]
    if any(packet[offset : offset + 2]):
        return None
    if version == 4:
        copy = bytearray(packet)
        size = len(copy)
    else:
        if packet[6] == _NO_NEXT_HEADER or len(packet) <= MIN_HEADER[6]:
            return None
        copy = bytearray(packet)
        if packet[6] == _HOP_BY_HOP and packet[41:44] == _JUMBO and len(packet) >= MIN_HEADER[6] + _JUMBO_HEADER:
            copy[6] = copy[40]
            del copy[40 : 40 + _JUMBO_HEADER]
        size = len(copy) - MIN_HEADER[6]
    if len(copy) <= MAX_PACKET:
        copy[offset : offset + 2] = size.to_bytes(2)
        if version == 4:
            copy[_CHECKSUM : _CHECKSUM + 2] = bytes(2)  # It does not count the length, so it is open.
    return memoryview(copy)


def _layout(packet: memoryview) -> _Layout | None:
    """Return where the parts of `packet` are, or None if it is cut off before its end or has no whole header."""
    fields = flow_fields(packet[:MAX_PACKET])
    if fields is None:
        return None
    source, destination, protocol, source_port, destination_port, fragment, start = fields
    version = packet[0] >> 4
    length = int.from_bytes(packet[_LENGTH[version] : _LENGTH[version] + 2])
    end = length + (0 if version == 4 else MIN_HEADER[6]) if length else len(packet)
    if not start <= end <= len(packet):
        return None
    connection = source, destination, source_port, destination_port
    return _Layout(version, connection, protocol, fragment, start, end)


def _header_checksum(packet: memoryview) -> _WrongChecksum | None:
    """Return the right checksum of an IPv4 header if it has a wrong one."""
    if packet[0] >> 4 != 4:
        return None
    header = packet[: (packet[0] & 0x0F) * 4]
    return _wrong(header, _CHECKSUM, 0, [0])


def _transport_checksum(packet: memoryview, layout: _Layout) -> _WrongChecksum | None:
    """Return the right checksum of a TCP or UDP header if it has a wrong one.

    A fragment has no checksum of its own: a system sums a packet before it cuts it.
    """
    _, (source, destination, *_), protocol, fragment, start, end = layout
    shortest = {TCP: _TCP_HEADER, UDP: _UDP_HEADER}.get(protocol)
    if shortest is None or fragment or end - start < shortest:
        return None
    segment = packet[start:end]
    if protocol == UDP:
        if layout.version == 4 and not any(segment[6:8]):
            return None  # The sender computed none (RFC 768).
        length = int.from_bytes(segment[4:6])
        segment = segment[:length] if _UDP_HEADER <= length <= len(segment) else segment
    unsized = _sum(source + destination + protocol.to_bytes(2))
    sized = _sum(unsized.to_bytes(2) + len(segment).to_bytes(2))
    # The sum of the pseudo-header, in Windows and BSD without the length if a card shall split; or nothing at all.
    wrong = _wrong(segment, CHECKSUM_OFFSET[protocol], sized, [sized, unsized, 0])
    if wrong is None:
        return None
    right = wrong.right or (0xFFFF if protocol == UDP else 0)
    return wrong._replace(offset=start + wrong.offset, right=right)


def _wrong(data: memoryview, offset: int, initial: int, unfinished: list[int]) -> _WrongChecksum | None:
    """Return the right checksum of `data` if the one at `offset` is wrong; `initial` is the pseudo-header's sum."""
    if not internet_checksum(data, initial):
        return None
    blank = bytearray(data)
    blank[offset : offset + 2] = bytes(2)
    value = int.from_bytes(data[offset : offset + 2])
    return _WrongChecksum(value in unfinished, offset, internet_checksum(blank, initial))


def _sum(data: bytes) -> int:
    return 0xFFFF - internet_checksum(data)


def _segments(packet: memoryview, layout: _Layout, payload: int, size: int) -> list[memoryview]:
    """Return packets with `size` bytes of payload each, as a network card makes them.

    A superpacket longer than an IP packet can be (BIG TCP) becomes several ones first.
    """
    gso_type = GSO_TCPV4 if layout.version == 4 else GSO_TCPV6
    vnet_header = HEADER.pack(NEEDS_CSUM, gso_type, 0, size, layout.start, CHECKSUM_OFFSET[TCP])
    step = (MAX_PACKET - payload) // size * size
    records = []
    for first in range(payload, layout.end, step):
        header = bytearray(packet[:payload])
        _advance(header, layout, first - payload, (first - payload) // size)
        if first > payload:
            header[layout.start + _FLAGS] &= ~_CWR
        if first + step < layout.end:
            header[layout.start + _FLAGS] &= ~_FIN_PSH
        records.append(memoryview(bytearray(vnet_header + header + packet[first : min(first + step, layout.end)])))
    return list(split(records))


def _advance(header: bytearray, layout: _Layout, size: int, packets: int) -> None:
    """Change `header` to that of the packet which is `size` bytes and so many packets later in its connection."""
    place = layout.start + _SEQUENCE
    sequence = int.from_bytes(header[place : place + 4]) + size
    header[place : place + 4] = (sequence & 0xFFFFFFFF).to_bytes(4)
    if layout.version == 4:
        identification = int.from_bytes(header[_IDENTIFICATION : _IDENTIFICATION + 2]) + packets
        header[_IDENTIFICATION : _IDENTIFICATION + 2] = (identification & 0xFFFF).to_bytes(2)
