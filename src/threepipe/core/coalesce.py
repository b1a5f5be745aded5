"""Coalescing: merges runs of TCP or UDP packets of one flow into superpackets. Pure functions on bytes.

The other half of `threepipe.core.superpacket`, whose records these are. Splitting a coalesced record gives the same
packets again, except for the identification of packets that may not be fragmented, which has no meaning (RFC 6864,
section 4.1), and for the checksum of datagrams that had none, as those of VXLAN (RFC 7348, section 5): the segments of
a superpacket always have one. The rules:

- Only the last run of a flow grows, so the packets of a flow keep their order; packets of different flows may pass
  one another. Any other packet of a flow ends its run, and a packet of unknown flow (a fragment, one with IP options
  or extension headers) ends all runs.
- IP headers agree in all but lengths, identification and checksum; identifications count up, unless the
  packets may not be fragmented. Length fields match the packet.
- TCP: flags are ACK, or ACK and PSH, which ends the run; acknowledgment, window and options agree, and
  sequence numbers follow on each other.
- All segments have the size of the first, except that the last may be shorter, and none is empty. No superpacket
  is longer than 65535 bytes, or stands for more than 64 datagrams: kernels since 6.6 refuse more (UDP_MAX_SEGMENTS
  of <linux/udp.h>, later 128).
- The checksums of the IPv4 header and of TCP or UDP (perhaps partial) are right, as merging would repair a wrong one.
- The open checksum of a packet in a datagram, as Linux leaves it in VXLAN, is completed.
- UDP without a checksum is merged with its like. IPv6 forbids it, but for some tunnels (RFC 8200, section 8.1), and a
  checksum would have receivers take a datagram that they drop now, so it is not merged there.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from threepipe.core.packet import MAX_PACKET, internet_checksum
from threepipe.core.superpacket import (
    CHECKSUM_OFFSET,
    FLAGS,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_TYPE,
    GSO_UDP_L4,
    HEADER,
    HEADER_SIZE,
    MAX_DATAGRAMS,
    NEEDS_CSUM,
    TCP,
    UDP,
    plain_records,
)

__all__ = ["coalesce"]

_ACK, _PSH = 0x10, 0x08
_DONT_FRAGMENT = 0x40
_ATOMIC = -1  # Stands for an identification without meaning, or none.
_NOT_COMPUTED = b"\xff\xff"  # Sums up right, but RFC 1071 never gives it; only UDP sends it, for zero.
_LONGEST_HEADERS = 40 + 60  # IPv6, and TCP with all options.
_IPV4, _IPV6 = 20, 40  # Offset of the transport header, which implies the version.
_SHORTEST_TRAIN = 8  # Fewest packets for which comparing all at once pays.
_GSO_TYPES = {(_IPV4, TCP): GSO_TCPV4, (_IPV6, TCP): GSO_TCPV6, (_IPV4, UDP): GSO_UDP_L4, (_IPV6, UDP): GSO_UDP_L4}
_LEAVES = frozenset({50, 58, 59})
"""IPv6 next headers that no TCP or UDP header can follow visibly: ESP, ICMPv6, none."""


class _Segment(NamedTuple):
    """The fields of a packet that may be part of a superpacket."""

    packet: memoryview
    head: bytes  # A copy of its headers.
    protocol: int
    transport: int  # Offsets of the transport header and the payload.
    payload: int
    alike: bytes  # The header fields that are equal in all packets of a run, besides the flow.
    identification: int
    sequence: int
    partial: bool  # True if its checksum is partial.
    unchecked: bool  # True for a datagram without a checksum.
    inner: tuple[int, int]  # Offsets of the bytes and of the field of an inner checksum that is open; else both 0.


def coalesce(packets: Sequence[memoryview], vnet_header: bool, udp: bool) -> list[memoryview]:
    """Return as few records as can stand for `packets`. A merged record takes the place of its first packet.

    `packets` are IP packets (views of single bytes) or, with `vnet_header`, records; superpackets among these
    stay as they are. Without `udp` only TCP is merged: Linux before 6.2 takes no superpackets of UDP.
    """
    if len(packets) < 2:
        # A released view raises.
        return [packet[:] for packet in packets] if vnet_header else plain_records(packets)
    runs: list[_Run] = []
    growing: dict[bytes, _Run] = {}  # By flow: its last run.
    done = tried = 0  # Number of packets handled, and the end of those last tried as a train.
    while done < len(packets):
        piece = packets[done]
        done += 1
        packet = piece[HEADER_SIZE:] if vnet_header else piece
        head = packet[:_LONGEST_HEADERS].tobytes()
        transport, flow = _flow(head)
        run = segment = None
        if transport:
            run = growing.pop(flow, None)
            if udp or flow[0] == TCP:
                segment = _segment(packet, head, flow[0], transport, piece if vnet_header else None)
        elif not flow:
            growing.clear()
        if run and segment and run.takes(segment):
            run.add(segment)
        else:
            run = _Run(piece, segment)
            runs.append(run)
        if segment and not run.ended:
            growing[flow] = run
            if segment.protocol == UDP and (segment.partial or segment.inner[0]) and done >= tried:
                room = min((MAX_PACKET - run.length) // run.size, MAX_DATAGRAMS - len(run.payloads))
                train = run.like(piece, packets[done : done + room])
                tried = done + len(train)
                if len(train) >= _SHORTEST_TRAIN and run.add_train(piece, segment, train):
                    done = tried
    return [run.record(vnet_header) for run in runs]


def _flow(head: bytes) -> tuple[int, bytes]:
    """Return the offset of the transport header, and the flow: protocol, addresses and ports.

    The offset is 0 for a packet that is neither TCP nor UDP. If it may be one of them, the flow is empty too.
    """
    size = len(head)
    if size >= _IPV4 and head[0] == 0x45 and not (head[6] & 0x3F or head[7]):  # Neither options nor a fragment.
        protocol = head[9]
        if protocol != TCP and protocol != UDP:
            return 0, head[9:10]
        if size >= _IPV4 + 8:
            return _IPV4, head[9:10] + head[12:24]
    elif size >= _IPV6 and head[0] >> 4 == 6:
        protocol = head[6]
        if protocol in _LEAVES:
            return 0, head[6:7]
        if protocol in (TCP, UDP) and size >= _IPV6 + 8:
            return _IPV6, head[6:7] + head[8:44]
    return 0, b""


def _segment(
    packet: memoryview, head: bytes, protocol: int, transport: int, record: memoryview | None
) -> _Segment | None:
    """Return the fields of a packet, or None if it can be merged with no other."""
    length = len(packet)
    partial, inner = False, (0, 0)
    if record is not None and (record[FLAGS] or record[GSO_TYPE]):
        flags, gso_type, _, _, start, offset = HEADER.unpack_from(record)
        if gso_type != GSO_NONE:
            return None
        if flags & NEEDS_CSUM:
            partial = (start, offset) == (transport, CHECKSUM_OFFSET[protocol])
            if not partial:
                inner = start, start + offset
                # Its bytes are a part of the payload, and their words are words of the outer checksum.
                if protocol != UDP or start < transport + 8 or (start - transport) % 2 or inner[1] + 2 > length:
                    return None
    identification, sequence = _ATOMIC, 0
    if transport == _IPV4:
        if head[2] << 8 | head[3] != length:
            return None
        alike = head[1:2] + head[6:9]
        if not head[6] & _DONT_FRAGMENT:
            identification = head[4] << 8 | head[5]
    else:
        if (head[4] << 8 | head[5]) + _IPV6 != length:
            return None
        alike = head[:4] + head[7:8]
    unchecked = False
    if protocol == UDP:
        payload = transport + 8
        unchecked = head[transport + 6 : payload] == b"\0\0"
        if head[transport + 4] << 8 | head[transport + 5] != length - transport or (
            unchecked and (partial or transport != _IPV4)
        ):
            return None
    else:
        payload = transport + (head[transport + 12] >> 4) * 4 if length >= transport + 20 else 0
        if payload < transport + 20 or head[transport + 12] & 0x0F or head[transport + 13] & ~_PSH != _ACK:
            return None
        alike += (
            head[transport + 8 : transport + 13]
            + head[transport + 14 : transport + 16]
            + head[transport + 18 : payload]
        )
        sequence = int.from_bytes(head[transport + 4 : transport + 8], "big")
    if payload >= length:
        return None
    return _Segment(
        packet, head, protocol, transport, payload, alike, identification, sequence, partial, unchecked, inner
    )


class _Run:
    """Packets of one flow that become one record."""

    __slots__ = (
        "ended",
        "first",
        "identification",
        "last_flags",
        "length",
        "open_inside",
        "payloads",
        "piece",
        "sequence",
        "size",
        "verified",
    )

    def __init__(self, piece: memoryview, segment: _Segment | None) -> None:
        self.piece = piece
        self.payloads: list[memoryview] = []
        self.open_inside: list[
            tuple[int, int, int]
        ] = []  # Positions of payloads, and offsets as `_Segment.inner` there.
        self.ended = self.verified = False
        if segment:
            self.first = segment
            self.size = len(segment.packet) - segment.payload
            self.length = segment.payload
            self.sequence, self.identification = segment.sequence, segment.identification
            self.add(segment)

    def takes(self, segment: _Segment) -> bool:
        """Return True if `segment`, of the same flow, can be the next of this run."""
        first = self.first
        size = len(segment.packet) - segment.payload
        if (
            segment.alike != first.alike
            or segment.unchecked != first.unchecked
            or size > self.size
            or self.length + size > MAX_PACKET
            or (segment.protocol == UDP and len(self.payloads) == MAX_DATAGRAMS)
            or segment.sequence != self.sequence
            or segment.identification != self.identification
        ):
            return False
        self.verified = self.verified or _is_right(first)
        return self.verified and _is_right(segment)

    def add(self, segment: _Segment) -> None:
        """Append `segment` to the run."""
        size = len(segment.packet) - segment.payload
        self.payloads.append(segment.packet[segment.payload :])
        if segment.inner[0]:
            start, field = segment.inner
            self.open_inside.append((len(self.payloads) - 1, start - segment.payload, field - segment.payload))
        self.length += size
        if segment.protocol == TCP:
            self.sequence = (self.sequence + size) & 0xFFFFFFFF
            self.last_flags = segment.head[segment.transport + 13]
            self.ended = bool(self.last_flags & _PSH)
        if self.identification != _ATOMIC:
            self.identification = (self.identification + 1) & 0xFFFF
        self.ended = self.ended or size < self.size

    def like(self, piece: memoryview, following: Sequence[memoryview]) -> Sequence[memoryview]:
        """Return the packets at the start of `following` that are as long as `piece`."""
        length = len(piece)
        for count, other in enumerate(following):
            if len(other) != length:
                return following[:count]
        return following

    def add_train(self, piece: memoryview, last: _Segment, train: Sequence[memoryview]) -> bool:
        """Append all of `train`, records as long as `piece`, if they follow it as in a burst that a kernel sends.

        `last` has the fields of `piece`, a datagram with a partial checksum, its own or an inner one. This is a
        shortcut for calling `takes` for each packet: as all headers are equal, except for IPv4's identification and
        checksum, it compares each byte of all headers at once. Return False if the packets are not such a train.
        """
        self.verified = self.verified or _is_right(self.first)
        if not self.verified:
            return False
        count, stride = len(train), len(piece)
        data = stride - self.size
        head, joined = piece[:data].tobytes(), b"".join(train)
        varying: tuple[int, ...] = ()
        if last.transport == _IPV4:
            place = data - last.payload  # Offset of the packet.
            first, checksum = struct.unpack_from("!H4xH", head, place + 4)
            identifications, checksums = _column(joined, place + 4, stride), _column(joined, place + 10, stride)
            if self.identification != _ATOMIC and identifications != tuple(
                [(first + number) & 0xFFFF for number in range(1, count + 1)]
            ):
                return False
            # The checksum shrinks as the identification grows, so that the sum stays the same (RFC 1071).
            sums = {(one + other) % 0xFFFF for one, other in zip(identifications, checksums, strict=True)}
            if sums != {(first + checksum) % 0xFFFF} or 0xFFFF in checksums:
                return False
            varying = (place + 4, place + 5, place + 10, place + 11)
        if any(joined[at::stride] != head[at : at + 1] * count for at in range(data) if at not in varying):
            return False
        if (inner := last.inner[0] - last.payload) > 0:
            field = last.inner[1] - last.payload
            if len({_outer_sum(record[data:], inner, field) for record in (piece, *train)}) > 1:
                return False
            held = len(self.payloads)
            self.open_inside += [(number, inner, field) for number in range(held, held + count)]
        self.payloads += [record[data:] for record in train]
        self.length += self.size * count
        if self.identification != _ATOMIC:
            self.identification = (self.identification + count) & 0xFFFF
        return True

    def record(self, vnet_header: bool) -> memoryview:
        """Return one record for all packets."""
        if len(self.payloads) < 2:
            return self.piece if vnet_header else plain_records([self.piece])[0]
        for index, start, open_field in self.open_inside:
            self.payloads[index] = _completed(self.payloads[index], start, open_field)
        first = self.first
        transport, payload, field = first.transport, first.payload, first.transport + CHECKSUM_OFFSET[first.protocol]
        head = bytearray(first.head[:payload])
        if transport == _IPV4:
            struct.pack_into("!H", head, 2, self.length)
            head[10:12] = b"\0\0"
            struct.pack_into("!H", head, 10, internet_checksum(head[:transport]))
        else:
            struct.pack_into("!H", head, 4, self.length - transport)
        if first.protocol == TCP:
            head[transport + 13] = self.last_flags  # ACK, and PSH if the last one has it.
        else:
            struct.pack_into("!H", head, transport + 4, self.length - transport)
        struct.pack_into("!H", head, field, _pseudo_header_sum(first, self.length - transport))
        gso_type = _GSO_TYPES[transport, first.protocol]
        header = HEADER.pack(NEEDS_CSUM, gso_type, payload, self.size, transport, field - transport)
        return memoryview(bytearray().join((header, head, *self.payloads)))


def _column(joined: bytes, at: int, stride: int) -> tuple[int, ...]:
    """Return the 16-bit word at offset `at` of each of the joined records."""
    words = bytearray(len(joined) // stride * 2)
    words[::2], words[1::2] = joined[at::stride], joined[at + 1 :: stride]
    return struct.unpack(f"!{len(words) // 2}H", words)


def _is_right(segment: _Segment) -> bool:
    """Return True if a segment's checksums are right, so that computing them anew repairs nothing."""
    packet, head, transport = segment.packet, segment.head, segment.transport
    if transport == _IPV4 and (internet_checksum(head[:_IPV4]) or head[10:12] == _NOT_COMPUTED):
        return False
    if segment.unchecked:
        return True
    total = _pseudo_header_sum(segment, len(packet) - transport)
    field = transport + CHECKSUM_OFFSET[segment.protocol]
    if segment.partial:
        return head[field] << 8 | head[field + 1] == total
    if segment.protocol == TCP and head[field : field + 2] == _NOT_COMPUTED:
        return False
    start, open_field = segment.inner
    if start:
        return (total + _outer_sum(packet[transport:], start - transport, open_field - transport)) % 0xFFFF == 0
    return not internet_checksum(packet[transport:], total)


def _outer_sum(payload: memoryview, start: int, field: int) -> int:
    """Return the sum, modulo 0xFFFF, that a datagram's payload has once its inner checksum is completed.

    The bytes from `start` on then sum up to the complement of the pseudo-header's sum, which the field holds now.
    """
    return (int.from_bytes(payload[:start], "big") - int.from_bytes(payload[field : field + 2], "big")) % 0xFFFF


def _completed(payload: memoryview, start: int, field: int) -> memoryview:
    """Return a copy of a datagram's payload with its inner checksum completed."""
    completed = bytearray(payload)
    checksum = internet_checksum(payload[start:])
    if field - start == CHECKSUM_OFFSET[UDP]:
        checksum = checksum or 0xFFFF
    completed[field], completed[field + 1] = checksum >> 8, checksum & 0xFF
    return memoryview(completed)


def _pseudo_header_sum(segment: _Segment, length: int) -> int:
    """Return the folded sum of addresses, protocol and length, which a partial checksum field holds."""
    addresses = segment.head[12:20] if segment.transport == _IPV4 else segment.head[8:40]
    return 0xFFFF - internet_checksum(addresses, segment.protocol + length)
