"""The IP packet behind a link-layer header. Pure functions on bytes.

Link types are those of files (www.tcpdump.org/linktypes.html); some differ from a system's DLT_ numbers.
"""

from collections.abc import Callable
from typing import TypeAlias

from threepipe.core.packet import MIN_HEADER

__all__ = ["RAW", "ip_packet", "is_known"]

NULL, ETHERNET, RAW, LOOP, LINUX_SLL, IPV4, IPV6, LINUX_SLL2 = 0, 1, 101, 108, 113, 228, 229, 276
_BSD_RAW, _OPENBSD_RAW = 12, 14  # DLT_RAW, which some programs write to files in place of 101.
_PPP, _PPP_HDLC, _PPP_ETHER, _C_HDLC, _PPP_PPPD, _PPP_WITH_DIR = 9, 50, 51, 104, 166, 204

_ETHER_TYPES = {0x0800: 4, 0x86DD: 6}
_PPPOE_SESSION = 0x8864
_PPPOE_HEADER = 6  # Bytes (RFC 2516, section 4).
_PPP_PROTOCOLS = {0x0021: 4, 0x0057: 6}  # RFC 1332 and RFC 5072.
_VLAN_TAGS = frozenset({0x8100, 0x88A8, 0x9100})  # IEEE 802.1Q, 802.1ad, and the latter's predecessor.
_VLAN_TAG = 4  # Bytes.
# AF_INET is 2 everywhere. AF_INET6 is 10 on Linux, 24 on NetBSD and OpenBSD, 28 on FreeBSD, and 30 on macOS.
_FAMILIES = {2: 4, 10: 6, 24: 6, 28: 6, 30: 6}
_NO_NEXT_HEADER = 59  # RFC 8200, section 4.7.

Payload: TypeAlias = tuple[int, memoryview]
"""The IP version by the link-layer header, 0 for other protocols, and the bytes behind that header."""


def is_known(link_type: int) -> bool:
    """Return True if `ip_packet` can find IP packets in frames of `link_type`."""
    return link_type in _LINK_TYPES


def ip_packet(link_type: int, frame: memoryview) -> memoryview | None:
    """Return the IPv4 or IPv6 packet in a frame of `link_type`, or None if it has none.

    It may be longer than `MAX_PACKET`: Linux makes TCP superpackets of that size.
    """
    if (strip := _LINK_TYPES.get(link_type)) is None:
        return None
    version, packet = strip(frame)
    return packet if version and len(packet) >= MIN_HEADER[version] and packet[0] >> 4 == version else None


def _raw(frame: memoryview) -> Payload:
    version = frame[0] >> 4 if frame else 0
    return (version if version in MIN_HEADER else 0), frame


def _loopback(frame: memoryview) -> Payload:
    # The family is in the byte order of the capturing machine (NULL), or big-endian (LOOP), which some systems ignore.
    # Only one order gives a known family.
    family = bytes(frame[:4])
    return _FAMILIES.get(int.from_bytes(family, "little")) or _FAMILIES.get(int.from_bytes(family), 0), frame[4:]


def _ppp(frame: memoryview) -> Payload:
    """Return the payload of PPP, with or without the address and control fields of HDLC (RFC 1661 and RFC 1662)."""
    start = 2 if bytes(frame[:2]) == b"\xff\x03" else 0
    # An odd first byte is the whole protocol, with the zero before it left out (RFC 1661, section 6.5).
    size = 1 if frame[start : start + 1] and frame[start] & 1 else 2
    version = _PPP_PROTOCOLS.get(int.from_bytes(frame[start : start + size]), 0)
    packet = frame[start + size :]
    return version, _unpadded(version, packet)


def _hdlc(frame: memoryview) -> Payload:
    """Return the payload of PPP or Cisco's HDLC, which has an EtherType in its place (RFC 1547, section 4.3.1)."""
    return _by_ether_type(frame, 2, 4) if bytes(frame[:1]) in (b"\x0f", b"\x8f") else _ppp(frame)


def _by_ether_type(frame: memoryview, offset: int, header: int) -> Payload:
    """Return the payload of a frame with an EtherType at `offset` and a header of `header` bytes."""
    ether_type = int.from_bytes(frame[offset : offset + 2])
    while ether_type in _VLAN_TAGS:
        ether_type, header = int.from_bytes(frame[header + 2 : header + _VLAN_TAG]), header + _VLAN_TAG
    if ether_type == _PPPOE_SESSION:
        return _ppp(frame[header + _PPPOE_HEADER :])
    version = _ETHER_TYPES.get(ether_type, 0)
    return version, _unpadded(version, frame[header:])


def _unpadded(version: int, packet: memoryview) -> memoryview:
    """Cut `packet` to its own length: Ethernet pads short frames, and may leave its checksum."""
    if not version or len(packet) < (shortest := MIN_HEADER[version]):
        return packet
    length = int.from_bytes(packet[2:4]) if version == 4 else int.from_bytes(packet[4:6]) + shortest
    # The length field is 0 in a superpacket that the sender's network card was going to segment.
    unknown = length < shortest if version == 4 else length == shortest and packet[6] != _NO_NEXT_HEADER
    return packet if unknown else packet[:length]


_LINK_TYPES: dict[int, Callable[[memoryview], Payload]] = {
    NULL: _loopback,
    ETHERNET: lambda frame: _by_ether_type(frame, 12, 14),
    _PPP: _ppp,
    _BSD_RAW: _raw,
    _OPENBSD_RAW: _raw,
    _PPP_HDLC: _hdlc,
    _PPP_ETHER: lambda frame: _ppp(frame[_PPPOE_HEADER:]),
    RAW: _raw,
    _C_HDLC: _hdlc,
    LOOP: _loopback,
    LINUX_SLL: lambda frame: _by_ether_type(frame, 14, 16),
    _PPP_PPPD: lambda frame: _ppp(frame[2:]),  # The direction in place of the address, and the control field.
    _PPP_WITH_DIR: lambda frame: _ppp(frame[1:]),  # The direction before it.
    IPV4: lambda frame: (4, frame),
    IPV6: lambda frame: (6, frame),
    LINUX_SLL2: lambda frame: _by_ether_type(frame, 0, 20),
}
