"""The flow of a packet: its addresses, protocol and ports, behind all header extensions. Pure functions on bytes.

RFC 791, section 3.1 (IPv4), RFC 8200, section 4 (extension headers), RFC 6946 (atomic fragments).
"""

from threepipe.core.packet import Packet, is_packet

__all__ = ["FlowFields", "flow_fields"]

FlowFields = tuple[bytes, bytes, int, int, int, bool, int]
"""Source, destination, protocol, source port, destination port, True for a fragment, the protocol header's offset."""

_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS = frozenset((0, 43, _FRAGMENT, _AUTHENTICATION, 60, 135, 139, 140))
"""IANA's list of IPv6 extension header types, without ESP, which hides the rest."""
_MAX_EXTENSIONS = 16  # More than any real packet has; this bounds the work for a hostile one.
_WITH_PORTS = frozenset((6, 17, 33, 132, 136))  # TCP, UDP, DCCP, SCTP, UDP-Lite: two ports of 16 bits come first.


def flow_fields(packet: Packet) -> FlowFields | None:
    """Return the fields of an IP packet; None if it is not an IP packet or its headers are cut off.

    Addresses have 4 or 16 bytes. Ports are 0 if the protocol has none, and in a fragment that is not the first. The
    offset is that of the header of `protocol`; in a fragment that is not the first, of its data.
    """
    if not is_packet(packet):
        return None
    if packet[0] >> 4 == 4:
        start = (packet[0] & 0x0F) * 4
        if start < 20:
            return None
        source, destination, protocol = bytes(packet[12:16]), bytes(packet[16:20]), packet[9]
        later = bool(packet[7] or packet[6] & 0x1F)  # The offset.
        fragment = later or bool(packet[6] & 0x20)  # More fragments.
    else:
        source, destination = bytes(packet[8:24]), bytes(packet[24:40])
        if (found := _behind_extensions(packet)) is None:
            return None
        start, protocol, fragment, later = found
    if start > len(packet):
        return None
    if later or protocol not in _WITH_PORTS:
        return source, destination, protocol, 0, 0, fragment, start
    if start + 4 > len(packet):
        return None
    ports = packet[start], packet[start + 1], packet[start + 2], packet[start + 3]
    return source, destination, protocol, ports[0] << 8 | ports[1], ports[2] << 8 | ports[3], fragment, start


def _behind_extensions(packet: Packet) -> tuple[int, int, bool, bool] | None:
    """Return the offset behind the extension headers, the protocol, True for a fragment, True for one not the first.

    Returns None if they are cut off or too many.
    """
    start, kind, fragment, later = 40, packet[6], False, False
    for _ in range(_MAX_EXTENSIONS + 1):
        if kind not in _EXTENSIONS or later:
            return start, kind, fragment, later
        if start + 8 > len(packet):
            return None
        if kind == _FRAGMENT:
            offset = packet[start + 2] << 8 | packet[start + 3]
            fragment, later = fragment or bool(offset & 0xFFF9), offset >= 8
            size = 8
        elif kind == _AUTHENTICATION:
            size = (packet[start + 1] + 2) * 4  # RFC 4302, section 2.2.
        else:
            size = (packet[start + 1] + 1) * 8
        kind, start = packet[start], start + size
    return None
