"""The check for IP packets, and the Internet checksum. Pure functions on bytes.

The rule is that of Wintun's driver: (length >= 20 and version 4) or (length >= 40 and version 6),
and no packet is longer than 65535 bytes. Nothing more is checked: checksums, length fields and
addresses are the receiver's business.
"""

from collections.abc import Sequence

from threepipe.errors import InvalidPacket

__all__ = ["MAX_PACKET", "MIN_HEADER", "SHORTEST", "Packet", "check_packets", "internet_checksum", "is_packet"]

Packet = bytes | bytearray | memoryview
"""Bytes-like objects that hold one IP packet each."""

MAX_PACKET = 0xFFFF
"""Bytes of the longest IP packet, as in WINTUN_MAX_IP_PACKET_SIZE."""

MIN_HEADER = {4: 20, 6: 40}
"""IP version -> bytes of its shortest header (RFC 791, section 3.1; RFC 8200, section 3)."""

SHORTEST = tuple([MIN_HEADER.get(first >> 4, MAX_PACKET + 1) for first in range(256)])
"""First byte of a packet -> bytes of the shortest one that starts with it; none is that long without an IP version."""


def is_packet(packet: Packet) -> bool:
    """Return True if Wintun's driver would accept `packet`, a buffer of single bytes, as an IP packet."""
    size = len(packet)
    return 20 <= size <= MAX_PACKET and ((version := packet[0] >> 4) == 4 or (version == 6 and size >= 40))


def check_packets(packets: Sequence[Packet]) -> None:
    """Raise `InvalidPacket` for the first of `packets`, buffers of single bytes, that is not an IP packet."""
    for index, packet in enumerate(packets):
        if not is_packet(packet):
            raise InvalidPacket(index, _reason(packet))


def _reason(packet: Packet) -> str:
    size = len(packet)
    if size > MAX_PACKET:
        return f"has {size} bytes; an IP packet has at most {MAX_PACKET}"
    if not size:
        return "is empty; give whole IPv4 or IPv6 packets, without a link-layer header"
    version = packet[0] >> 4
    if version not in MIN_HEADER:
        return f"has IP version {version}; give whole IPv4 or IPv6 packets, without a link-layer header"
    return f"has {size} bytes; an IPv{version} header alone has {MIN_HEADER[version]}"


def internet_checksum(data: Packet, initial: int = 0) -> int:
    """Return the 16-bit checksum of RFC 1071 over `data`, which is padded to an even length with a zero byte.

    `initial` is a sum to start from, such as that of a pseudo-header. The result is 0 if `data` includes
    a checksum field with the right value.
    """
    # The sum of 16-bit words is the number itself modulo 0xFFFF, because 0x10000 is 1 there (RFC 1071,
    # section 2): one long division in C in place of a loop. Zero needs care, as both 0 and 0xFFFF mean it.
    padded = len(data) + (len(data) & 1)
    total = (int.from_bytes(data, "big") << (8 * (padded - len(data)))) + initial
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))
