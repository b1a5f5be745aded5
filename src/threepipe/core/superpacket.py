"""Superpackets: TCP or UDP packets that stand for up to 64 KiB of segments each. Pure functions on bytes.

A TUN device with IFF_VNET_HDR reads and writes records: a `struct virtio_net_hdr` of 10 bytes in this
machine's byte order, and a packet. The header says how to segment the packet, and whether its checksum
is partial, with only the pseudo-header summed (VIRTIO 1.2, section 5.1.6). This file turns records into
complete packets of the size that the link carries, with right checksums.

The header's `hdr_len` is ignored, as on a forwarded packet it covers all of the first segment. Lengths
come from `csum_start` and the packet itself, and are checked against it. A record that contradicts
itself has no packets. All functions take records of at least a header's 10 bytes.
"""

import operator
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from threepipe.core.packet import MAX_PACKET, Packet, internet_checksum, is_packet

__all__ = [
    "CHECKSUM_OFFSET",
    "FLAGS",
    "GSO_NONE",
    "GSO_TCPV4",
    "GSO_TCPV6",
    "GSO_TYPE",
    "GSO_UDP_L4",
    "HEADER",
    "HEADER_SIZE",
    "MAX_DATAGRAMS",
    "MAX_RECORD",
    "NEEDS_CSUM",
    "PLAIN_HEADER",
    "TCP",
    "UDP",
    "Layout",
    "are_plain",
    "extract",
    "is_transport",
    "layout",
    "measure",
    "plain_records",
    "segments",
    "split",
]

HEADER_SIZE = 10
MAX_RECORD = HEADER_SIZE + MAX_PACKET
"""Bytes of the longest record."""
MAX_DATAGRAMS = 64
"""Datagrams in a superpacket: kernels since 6.6 take no more (UDP_MAX_SEGMENTS of <linux/udp.h>, later 128)."""
PLAIN_HEADER = bytes(HEADER_SIZE)
"""The header of a packet that is complete and stands for itself."""

HEADER = struct.Struct("=BBHHHH")
FLAGS, GSO_TYPE = 0, 1
"""Offsets of the header's first two fields, of one byte each."""
_WORD, _TWO_WORDS, _LONG = struct.Struct("!H"), struct.Struct("!HH"), struct.Struct("!I")

# <linux/virtio_net.h>
NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4 = 0, 1, 4, 5

TCP, UDP = 6, 17
_MANY = 8  # Fewest records for which measuring all at once pays.
_SHORTEST_IP_HEADER, _LONGEST_MIN_HEADER = 20, 40
_FIN_PSH = 0x09
_CWR = 0x80
CHECKSUM_OFFSET = {TCP: 16, UDP: 6}
_SHORTEST = {TCP: 20, UDP: 8}  # Bytes of a header without options.
_FIRST_BYTE = operator.itemgetter(0)
_FLAGS_OF, _GSO_TYPE_OF = operator.itemgetter(FLAGS), operator.itemgetter(GSO_TYPE)
_KINDS = {(GSO_TCPV4, 4): TCP, (GSO_TCPV6, 6): TCP, (GSO_UDP_L4, 4): UDP, (GSO_UDP_L4, 6): UDP}
"""GSO type and IP version -> protocol of the segments."""


class Layout(NamedTuple):
    """The parts of a superpacket: offsets in the packet, and bytes of payload in each segment."""

    version: int
    protocol: int
    transport: int
    payload: int
    segment: int


def plain_records(packets: Sequence[Packet]) -> list[memoryview]:
    """Return records, in new memory, for complete packets."""
    return [memoryview(bytearray().join((PLAIN_HEADER, packet))) for packet in packets]


def are_plain(records: Sequence[memoryview]) -> bool:
    """Return True if each of `records` is a packet that is complete and stands for itself. Makes no call per record."""
    return not any(map(_FLAGS_OF, records)) and not any(map(_GSO_TYPE_OF, records))


def measure(records: Sequence[Packet], vnet_header: bool = True) -> tuple[int, int, bool]:
    """Return how many packets `records` stand for, their bytes, and True if all are IP packets. Splits nothing.

    Without `vnet_header` the records are packets themselves.
    """
    if not vnet_header:
        lengths = list(map(len, records))
        return len(records), sum(lengths), _are_packets(records, lengths)
    if len(records) >= _MANY and (size := _size_of_like(records)):
        return len(records), size, True
    packets = size = 0
    valid = True
    for record in records:
        length = len(record) - HEADER_SIZE
        count, added = 1, 0
        if record[GSO_TYPE] != GSO_NONE:
            parts = layout(record[HEADER_SIZE:], HEADER.unpack_from(record))
            count = -(-(length - parts.payload) // parts.segment) if parts else 0
            added = (count - 1) * parts.payload if parts else 0
        elif record[FLAGS] and not _can_be_completed(record):
            count = 0
        packets += count
        size += length + added if count else 0
        # The rule of is_packet(), without a slice for every packet.
        version = record[HEADER_SIZE] >> 4 if length >= 20 and count else 0
        valid = valid and (version == 4 or (version == 6 and length >= 40)) and length <= MAX_PACKET
    return packets, size, valid


def _are_packets(records: Sequence[Packet], lengths: Sequence[int]) -> bool:
    """Return True if all `records`, of these `lengths`, are IP packets. Makes no call per record if none is short."""
    different = set(lengths)  # Mostly few.
    if len(lengths) >= _MANY and min(different) >= _LONGEST_MIN_HEADER and max(different) <= MAX_PACKET:
        return {first >> 4 for first in set(map(_FIRST_BYTE, records))} <= {4, 6}
    return all(map(is_packet, records))


def _size_of_like(records: Sequence[Packet]) -> int:
    """Return the bytes of all packets if each record is one valid packet and all start alike, else 0.

    A shortcut for many small records, which compares all of them at once.
    """
    lengths = list(map(len, records))
    start = bytes(records[0][: HEADER_SIZE + 1])
    shortest = min(lengths) - HEADER_SIZE
    if (
        shortest < _LONGEST_MIN_HEADER
        or max(lengths) > MAX_RECORD
        or start[1] != GSO_NONE
        or start[HEADER_SIZE] >> 4 not in (4, 6)
        or b"".join([record[: HEADER_SIZE + 1] for record in records]) != start * len(records)
    ):
        return 0
    _, _, _, _, place, offset = HEADER.unpack_from(start)
    if start[0] & NEEDS_CSUM and (place < _SHORTEST_IP_HEADER or place + offset + 2 > shortest):
        return 0
    return sum(lengths) - HEADER_SIZE * len(records)


def split(records: Sequence[memoryview]) -> list[memoryview]:
    """Return the packets that `records` stand for: views of a record that is one packet, else of new memory.

    A partial checksum is completed in the record itself, and the record's header then says so.
    """
    packets: list[memoryview] = []
    for record in records:
        if record[FLAGS] or record[GSO_TYPE] or len(record) < HEADER_SIZE:
            packets += _split(record)
        else:
            packets.append(record[HEADER_SIZE:])
    return packets


def extract(records: Sequence[memoryview]) -> list[bytes]:
    """Return copies of the packets that `records` stand for. May complete partial checksums as `split` does."""
    return [packet.tobytes() for packet in split(records)]


def _split(record: memoryview) -> list[memoryview]:
    flags, gso_type, hdr_len, gso_size, start, offset = HEADER.unpack_from(record)
    packet = record[HEADER_SIZE:]
    if gso_type == GSO_NONE:
        if not _can_be_completed(record):
            return []
        if flags & NEEDS_CSUM:
            # The field holds the sum of the pseudo-header, so that is included.
            _put_checksum(packet, start + offset, internet_checksum(packet[start:]), udp=offset == CHECKSUM_OFFSET[UDP])
            HEADER.pack_into(record, 0, flags & ~NEEDS_CSUM, gso_type, hdr_len, gso_size, start, offset)
        return [packet]
    parts = layout(packet, (flags, gso_type, hdr_len, gso_size, start, offset))
    return [memoryview(segment) for segment in segments(packet, parts)] if parts else []


def _can_be_completed(record: Packet) -> bool:
    """Return True if a single packet's checksum is complete, or its field lies behind an IP header."""
    if not record[FLAGS] & NEEDS_CSUM:
        return True
    _, _, _, _, start, offset = HEADER.unpack_from(record)
    return bool(start >= _SHORTEST_IP_HEADER and start + offset + 2 <= len(record) - HEADER_SIZE)


def layout(packet: Packet, fields: tuple[int, ...]) -> Layout | None:
    """Return the parts of a superpacket, or None if the `fields` of its header and the packet contradict each other."""
    flags, gso_type, _, gso_size, start, offset = fields
    first = packet[0] if packet else 0
    version = first >> 4
    protocol = _KINDS.get((gso_type, version), 0)
    if not protocol or not flags & NEEDS_CSUM or not gso_size or offset != CHECKSUM_OFFSET[protocol]:
        return None
    shortest = _SHORTEST[protocol]
    if start + shortest > len(packet) or not is_transport(version, start, first):
        return None
    payload = start + (shortest if protocol == UDP else (packet[start + 12] >> 4) * 4)
    if not start + shortest <= payload < len(packet) <= MAX_PACKET:
        return None
    return Layout(version, protocol, start, payload, gso_size)


def is_transport(version: int, start: int, first: int) -> bool:
    """Return True if a transport header can be at `start` in a packet of that version whose first byte is `first`."""
    return start >= 40 if version == 6 else start >= _SHORTEST_IP_HEADER and start == (first & 0x0F) * 4


def segments(packet: memoryview, parts: Layout) -> Iterator[bytearray]:
    """Yield the packets of a superpacket. Common bytes are summed once, those that differ for each packet.

    Sums count modulo 0xFFFF, as in `internet_checksum`. None is zero, as each includes a version or a protocol, so a
    checksum is the sum's negative modulo 0xFFFF.
    """
    version, protocol, transport, payload, segment = parts
    header = bytearray(packet[:payload])
    field = transport + CHECKSUM_OFFSET[protocol]
    identification, sequence, flags = _clear_differing_fields(header, parts)
    network_sum = int.from_bytes(header[:transport], "big") % 0xFFFF
    pseudo_header = header[12:20] if version == 4 else header[8:40]
    transport_sum = (int.from_bytes(pseudo_header + header[transport:], "big") + protocol - transport) % 0xFFFF
    last = len(packet) - segment
    for index, start in enumerate(range(payload, len(packet), segment)):
        data = packet[start : start + segment]
        size = payload + len(data)
        # Summing byte-swapped words swaps the sum, so an odd end needs no padding (RFC 1071, section 2).
        total = transport_sum + size + (int.from_bytes(data, "little") % 0xFFFF << 8)
        if version == 4:
            number = (identification + index) & 0xFFFF
            _TWO_WORDS.pack_into(header, 2, size, number)
            _WORD.pack_into(header, 10, -(network_sum + size + number) % 0xFFFF)
        else:
            _WORD.pack_into(header, 4, size - 40)
        if protocol == TCP:
            number = (sequence + start - payload) & 0xFFFFFFFF
            kept = flags
            if start < last:  # FIN and PSH are for the last segment only.
                kept &= ~_FIN_PSH
            if index:
                kept &= ~_CWR
            _LONG.pack_into(header, transport + 4, number)
            header[transport + 13] = kept
            _WORD.pack_into(header, field, -(total + number + kept) % 0xFFFF)
        else:
            length = size - transport
            _WORD.pack_into(header, transport + 4, length)
            _WORD.pack_into(header, field, -(total + length) % 0xFFFF or 0xFFFF)
        yield header + data


def _clear_differing_fields(header: bytearray, parts: Layout) -> tuple[int, int, int]:
    """Zero the fields that differ between segments. Return the identification, sequence number and flags."""
    version, protocol, transport, _, _ = parts
    identification = sequence = flags = 0
    if version == 4:
        _, identification = _TWO_WORDS.unpack_from(header, 2)
        _TWO_WORDS.pack_into(header, 2, 0, 0)
        _WORD.pack_into(header, 10, 0)
    if protocol == TCP:
        (sequence,) = _LONG.unpack_from(header, transport + 4)
        flags = header[transport + 13]
        _LONG.pack_into(header, transport + 4, 0)
        header[transport + 13] = 0
    else:
        _WORD.pack_into(header, transport + 4, 0)
    _WORD.pack_into(header, transport + CHECKSUM_OFFSET[protocol], 0)
    return identification, sequence, flags


def _put_checksum(packet: memoryview, offset: int, checksum: int, *, udp: bool) -> None:
    # In UDP zero means no checksum, so 0xFFFF stands for it (RFC 768).
    struct.pack_into("!H", packet, offset, checksum or (0xFFFF if udp else 0))
