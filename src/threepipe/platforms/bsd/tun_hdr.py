"""OpenBSD's `struct tun_hdr` and the virtio header of records, translated into each other. Pure functions on bytes.

With TUNSCAP a `tun_hdr` of 8 bytes in this machine's byte order is before the family: flags, two unused fields and the
segments' size. It marks checksums that are not computed yet, and TCP superpackets. Constants as in <net/if_tun.h>.
"""

import struct

from threepipe.core.packet import Packet, internet_checksum
from threepipe.core.superpacket import (
    CHECKSUM_OFFSET,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    HEADER,
    HEADER_SIZE,
    NEEDS_CSUM,
    PLAIN_HEADER,
    TCP,
    UDP,
)

__all__ = ["PLAIN", "TUN_HDR", "tun_hdr", "virtio_header"]

TUN_HDR = struct.Struct("HHHH")
PLAIN = bytes(TUN_HDR.size)
"""The `tun_hdr` of a packet that is complete and stands for itself."""

TUN_H_TCP_MSS = 1 << 5
TUN_H_IPV4_CSUM = 1 << 8
TUN_H_TCP_CSUM = 1 << 9
TUN_H_UDP_CSUM = 1 << 10
TUN_H_ICMP_CSUM = 1 << 11

_PROTOCOLS = {TUN_H_TCP_CSUM: TCP, TUN_H_UDP_CSUM: UDP}
_FLAGS = {CHECKSUM_OFFSET[TCP]: TUN_H_TCP_CSUM, CHECKSUM_OFFSET[UDP]: TUN_H_UDP_CSUM}
_GSO_TYPES = {4: GSO_TCPV4, 6: GSO_TCPV6}
_WORD = struct.Struct("!H")


def virtio_header(header: bytes | bytearray, packet: memoryview) -> bytes | None:
    """Return the virtio header of a packet that the system sent behind the `tun_hdr` `header`.

    Completes the checksum of an IPv4 header in `packet`, and writes the sum of the pseudo-header where the checksum of
    TCP or UDP is missing. Returns None if header and packet contradict each other.
    """
    flags, _, _, mss = TUN_HDR.unpack(header)
    if not flags:
        return PLAIN_HEADER
    version = packet[0] >> 4 if len(packet) >= 20 else 0
    if version == 4:
        start = (packet[0] & 0x0F) * 4
        if flags & TUN_H_IPV4_CSUM and 20 <= start <= len(packet):
            _WORD.pack_into(packet, 10, 0)
            _WORD.pack_into(packet, 10, internet_checksum(packet[:start]))
    elif version == 6 and len(packet) >= 40:
        start = 40
    else:
        return None
    missing = flags & (TUN_H_TCP_CSUM | TUN_H_UDP_CSUM | TUN_H_ICMP_CSUM)
    if not missing:
        return None if flags & TUN_H_TCP_MSS else PLAIN_HEADER
    protocol = _PROTOCOLS.get(missing)  # Not ICMP's, which the system is not asked to leave out.
    if protocol is None:
        return None
    offset = CHECKSUM_OFFSET[protocol]
    # An extension header of IPv6 would have the transport header elsewhere.
    if packet[9 if version == 4 else 6] != protocol or start < 20 or start + offset + 2 > len(packet):
        return None
    length = len(packet) - start
    addresses = packet[12:20] if version == 4 else packet[8:40]
    _WORD.pack_into(packet, start + offset, 0xFFFF - internet_checksum(addresses, protocol + length))
    if not flags & TUN_H_TCP_MSS:
        return HEADER.pack(NEEDS_CSUM, GSO_NONE, 0, 0, start, offset)
    if protocol != TCP or not mss or start + 20 > len(packet):
        return None
    hdr_len = start + (packet[start + 12] >> 4) * 4
    if len(packet) <= hdr_len + mss:  # A superpacket has several segments.
        return HEADER.pack(NEEDS_CSUM, GSO_NONE, 0, 0, start, offset)
    return HEADER.pack(NEEDS_CSUM, _GSO_TYPES[version], hdr_len, mss, start, offset)


def tun_hdr(record: Packet) -> bytes | None:
    """Return the `tun_hdr` with which the system takes the packet of a record, None if it has to be split before."""
    flags, gso_type, _, gso_size, start, offset = HEADER.unpack_from(record)
    if not flags & NEEDS_CSUM:
        return PLAIN if gso_type == GSO_NONE else None
    found = _FLAGS.get(offset)
    packet = record[HEADER_SIZE:]
    if found is None or len(packet) < 20 or start != ((packet[0] & 0x0F) * 4 if packet[0] >> 4 == 4 else 40):
        return None
    if gso_type == GSO_NONE:
        return TUN_HDR.pack(found, 0, 0, 0)
    if found != TUN_H_TCP_CSUM or gso_type not in _GSO_TYPES.values():
        return None
    return TUN_HDR.pack(found | TUN_H_TCP_MSS, 0, 0, gso_size)
