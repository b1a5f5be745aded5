"""Tunnel superpackets: a datagram of a UDP tunnel, such as VXLAN, with a superpacket of TCP or UDP inside.

An adapter hands them over if it is asked to (Linux 6.17), and then each of its headers is wide: 24 bytes, a
`struct virtio_net_hdr_v1_hash_tunnel`, which begins with the fields of a virtio header. Linux takes none of them from
an adapter. So they become runs here: superpackets of UDP, whose segments are the datagrams, with complete packets
inside. Everything else knows records with a virtio header alone. Pure functions on bytes.
"""

import itertools
import struct

from threepipe.core.packet import MAX_PACKET, Packet, internet_checksum
from threepipe.core.superpacket import (
    CHECKSUM_OFFSET,
    GSO_NONE,
    GSO_TYPE,
    GSO_UDP_L4,
    HEADER,
    HEADER_SIZE,
    MAX_DATAGRAMS,
    NEEDS_CSUM,
    PLAIN_HEADER,
    UDP,
    Layout,
    is_transport,
    layout,
    segments,
)

__all__ = ["FILLER", "MAX_WIDE_RECORD", "WIDE_HEADER_SIZE", "narrow"]

WIDE_HEADER_SIZE = 24
MAX_WIDE_RECORD = WIDE_HEADER_SIZE + MAX_PACKET
"""Bytes of the longest record with a wide header."""
FILLER = bytes(WIDE_HEADER_SIZE - HEADER_SIZE)
"""The rest of the wide header of a record to send."""

_OFFSETS = struct.Struct("<HH")  # Of the outer transport header and of the inner IP header, in the packet.
_OFFSETS_PLACE = 20
_TUNNELS = {0x20: 4, 0x40: 6}  # Bits of the GSO type -> IP version of the tunnel's datagrams.
_TUNNEL_TYPE = 0x60
_TUNNEL_CSUM = 8  # A flag: the tunnel's datagrams have checksums.
_UDP_HEADER = 8


def narrow(record: memoryview) -> list[memoryview]:
    """Return a record with a wide header as those with a virtio header that it stands for.

    It is one in the same memory, or runs in new memory. A tunnel superpacket that contradicts itself stays, and so has
    no packets.
    """
    if record[GSO_TYPE] & _TUNNEL_TYPE and (runs := _runs(record)):
        return runs
    record[len(FILLER) : WIDE_HEADER_SIZE] = record[:HEADER_SIZE]
    return [record[len(FILLER) :]]


def _runs(record: memoryview) -> list[memoryview]:
    """Return the runs of a tunnel superpacket; none if it contradicts itself."""
    flags, gso_type, _, size, start, offset = HEADER.unpack_from(record)
    transport, inner = _OFFSETS.unpack_from(record, _OFFSETS_PLACE)
    packet = record[WIDE_HEADER_SIZE:]
    first = packet[0] if packet else 0
    version, payload = first >> 4, transport + _UDP_HEADER
    if (
        _TUNNELS.get(gso_type & _TUNNEL_TYPE) != version
        or not is_transport(version, transport, first)
        or not payload <= inner <= start
        or len(packet) > MAX_PACKET
    ):
        return []
    inside = packet[inner:]
    parts = layout(inside, (flags, gso_type & ~_TUNNEL_TYPE, 0, size, start - inner, offset))
    # As those of a run do. IPv6 forbids datagrams without one, but for some tunnels, and with one receivers would take
    # those that they drop now; so over IPv6 these stay without, and alone.
    checked = version == 4 or bool(flags & _TUNNEL_CSUM)
    return _runs_of(packet, payload, inner, parts, checked=checked) if parts else []


def _runs_of(packet: memoryview, payload: int, inner: int, parts: Layout, *, checked: bool) -> list[memoryview]:
    """Return the runs of a tunnel superpacket, whose inner packet has these `parts`; with `checked`, with checksums."""
    prefix = packet[payload:inner]
    size = inner - payload + min(len(packet) - inner, parts.payload + parts.segment)
    limit = min(max((MAX_PACKET - payload) // size, 1), MAX_DATAGRAMS) if checked else 1
    inside = segments(packet[inner:], parts)
    runs, done = list[memoryview](), 0
    while batch := list(itertools.islice(inside, limit)):
        head = _head(packet[:payload], payload + sum(map(len, batch)) + len(prefix) * len(batch), done)
        header = PLAIN_HEADER
        if checked:
            gso_type, step = (GSO_UDP_L4, size) if len(batch) > 1 else (GSO_NONE, 0)
            header = HEADER.pack(NEEDS_CSUM, gso_type, payload, step, payload - _UDP_HEADER, CHECKSUM_OFFSET[UDP])
        else:
            head[-2:] = b"\0\0"
        pieces: list[Packet] = [header, head]
        for segment in batch:
            pieces += prefix, segment
        runs.append(memoryview(bytearray().join(pieces)))
        done += len(batch)
    return runs


def _head(outer: memoryview, length: int, done: int) -> bytearray:
    """Return the outer headers of a run of `length` bytes after `done` datagrams, with an open checksum."""
    head = bytearray(outer)
    start = len(head) - _UDP_HEADER
    if head[0] >> 4 == 4:
        identification = int.from_bytes(head[4:6], "big") + done & 0xFFFF
        struct.pack_into("!HH", head, 2, length, identification)
        struct.pack_into("!H", head, 10, 0)
        struct.pack_into("!H", head, 10, internet_checksum(head[:start]))
        addresses = head[12:20]
    else:
        struct.pack_into("!H", head, 4, length - 40)
        addresses = head[8:40]
    pseudo_header = 0xFFFF - internet_checksum(addresses, UDP + length - start)
    struct.pack_into("!HH", head, start + 4, length - start, pseudo_header)
    return head
