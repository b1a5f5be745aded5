"""The IP packet behind a link-layer header. Pure functions on bytes.

Link types are those of files (www.tcpdump.org/linktypes.html), which are not always a system's DLT_ numbers.
"""

from collections.abc import Callable
from typing import TypeAlias

from threepipe.core.packet import MIN_HEADER, is_packet

__all__ = ["RAW", "ip_packet", "knows"]

NULL, ETHERNET, RAW, LOOP, LINUX_SLL, IPV4, IPV6, LINUX_SLL2 = 0, 1, 101, 108, 113, 228, 229, 276

_ETHER_TYPES = {0x0800: 4, 0x86DD: 6}
_VLAN_TAGS = frozenset({0x8100, 0x88A8, 0x9100})  # IEEE 802.1Q, 802.1ad, and what came before it.
_TAG = 4
# AF_INET is 2 everywhere; AF_INET6 is that of Linux, of NetBSD and OpenBSD, of FreeBSD, and of macOS.
_FAMILIES = {2: 4, 10: 6, 24: 6, 28: 6, 30: 6}

Inner: TypeAlias = tuple[int, memoryview]
"""The IP version that the link layer says, 0 where it says it is no IP, and what is behind its header."""


def knows(link: int) -> bool:
    """Whether packets of the link type `link` can be IP packets here."""
    return link in _LINKS


def ip_packet(link: int, frame: memoryview) -> memoryview | None:
    """The IPv4 or IPv6 packet in a frame of the link type `link`, or None where there is none."""
    if (strip := _LINKS.get(link)) is None:
        return None
    version, packet = strip(frame)
    return packet if is_packet(packet) and packet[0] >> 4 == version else None


def _raw(frame: memoryview) -> Inner:
    return (frame[0] >> 4 if frame else 0), frame


def _null(frame: memoryview) -> Inner:
    # The family stands in the byte order of the machine that captured, which its value gives away.
    family = bytes(frame[:4])
    return _FAMILIES.get(int.from_bytes(family, "little")) or _FAMILIES.get(int.from_bytes(family), 0), frame[4:]


def _loop(frame: memoryview) -> Inner:
    return _FAMILIES.get(int.from_bytes(frame[:4]), 0), frame[4:]


def _behind_type(frame: memoryview, place: int, start: int) -> Inner:
    """What is behind an EtherType at `place` and a header that ends at `start`, without padding."""
    ether_type = int.from_bytes(frame[place : place + 2])
    while ether_type in _VLAN_TAGS:
        ether_type, start = int.from_bytes(frame[start + 2 : start + _TAG]), start + _TAG
    version = _ETHER_TYPES.get(ether_type, 0)
    return version, _unpadded(version, frame[start:])


def _unpadded(version: int, packet: memoryview) -> memoryview:
    """Ethernet fills short frames up, and may leave its checksum; the packet says how long it is itself."""
    if not version or len(packet) < (shortest := MIN_HEADER[version]):
        return packet
    length = int.from_bytes(packet[2:4]) if version == 4 else int.from_bytes(packet[4:6]) + shortest
    # Of what the sender's own device cuts up, the length may be missing: it is 0 then.
    unknown = length < shortest if version == 4 else length == shortest and packet[6] != _NO_NEXT_HEADER
    return packet if unknown else packet[:length]


_NO_NEXT_HEADER = 59  # RFC 8200, section 4.7.

_LINKS: dict[int, Callable[[memoryview], Inner]] = {
    NULL: _null,
    ETHERNET: lambda frame: _behind_type(frame, 12, 14),
    RAW: _raw,
    LOOP: _loop,
    LINUX_SLL: lambda frame: _behind_type(frame, 14, 16),
    IPV4: lambda frame: (4, frame),
    IPV6: lambda frame: (6, frame),
    LINUX_SLL2: lambda frame: _behind_type(frame, 0, 20),
}
