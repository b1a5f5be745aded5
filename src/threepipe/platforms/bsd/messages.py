"""The messages of the routing socket and of sysctl's lists: interfaces, addresses and routes, as bytes.

Pure functions of bytes. route(4) and sysctl(3) of each system describe them; `kind` has the offsets.
"""

import ipaddress
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from threepipe.backend import AdapterStatistics
from threepipe.platforms.bsd.kind import (
    AF_INET,
    AF_LINK,
    RTA_DST,
    RTA_GATEWAY,
    RTA_IFA,
    RTA_IFP,
    RTA_NETMASK,
    RTF_HOST,
    RTF_STATIC,
    RTF_UP,
    Kind,
    Message,
)
from threepipe.settings import Address, Network

__all__ = [
    "IpAddress",
    "Link",
    "Route",
    "address_of",
    "host_message",
    "parse_addresses",
    "parse_links",
    "parse_routes",
    "route_message",
    "sockaddr",
]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_SHORT, _INT = struct.Struct("H"), struct.Struct("i")
_SDL = struct.Struct("BBHBBBB")  # sdl_len to sdl_slen of struct sockaddr_dl.
_IPV4, _IPV6 = 4, 8
"""Offsets of sin_addr and sin6_addr."""


@dataclass(frozen=True, slots=True)
class Link:
    """An interface in a list."""

    name: str
    index: int
    flags: int
    type: int
    mtu: int
    statistics: AdapterStatistics


@dataclass(frozen=True, slots=True)
class Route:
    """A route in a list."""

    index: int
    network: Network
    flags: int
    gateway: bytes = b""
    """A socket address, of another machine with RTF_GATEWAY, else of the interface."""


def sockaddr(kind: Kind, address: IpAddress) -> bytes:
    """Return a `struct sockaddr_in` or `struct sockaddr_in6`."""
    if address.version == 4:
        return struct.pack("BB2x", 16, AF_INET) + address.packed + bytes(8)
    return struct.pack("BB6x", 28, kind.inet6) + address.packed + bytes(4)


def route_message(
    kind: Kind, action: int, network: Network, index: int, gateway: IpAddress | None, sequence: int
) -> bytes:
    """Return the message that adds or deletes (RTM_ADD, RTM_DELETE) a route to the interface `index`.

    `gateway` is an address of the interface, for systems that want one.
    """
    host = network.prefixlen == network.max_prefixlen
    link = _SDL.pack(kind.sockaddr_dl, AF_LINK, index, 0, 0, 0, 0).ljust(kind.sockaddr_dl, b"\0")
    via = sockaddr(kind, gateway) if gateway else link
    parts = [(RTA_DST, sockaddr(kind, network.network_address)), (RTA_GATEWAY, via)]
    if not host:
        parts.append((RTA_NETMASK, sockaddr(kind, network.netmask)))
    if gateway:
        parts.append((RTA_IFP, link))  # Another interface may have the same address.
    return _message(kind, action, index, RTF_HOST if host else 0, parts, sequence)


def host_message(kind: Kind, action: int, address: IpAddress, gateway: bytes, flags: int, sequence: int) -> bytes:
    """Return the message that adds or deletes the route to one machine by `gateway`, a socket address as in `Route`.

    `flags` are RTF_GATEWAY and its like. Without a `gateway` it deletes the route by any gateway.
    """
    parts = [(RTA_DST, sockaddr(kind, address)), *([(RTA_GATEWAY, gateway)] if gateway else [])]
    return _message(kind, action, 0, RTF_HOST | flags, parts, sequence)


def _message(kind: Kind, action: int, index: int, flags: int, parts: list[tuple[int, bytes]], sequence: int) -> bytes:
    body = b"".join(part + bytes(-len(part) % kind.alignment) for _, part in parts)
    header = bytearray(kind.routes.size)
    struct.pack_into("HBB", header, 0, len(header) + len(body), kind.version, action)
    if kind.has_header_length:
        _SHORT.pack_into(header, 4, len(header))
    _SHORT.pack_into(header, kind.routes.index, index)
    _INT.pack_into(header, kind.routes.flags, RTF_UP | RTF_STATIC | flags)
    _INT.pack_into(header, kind.routes.addrs, sum(bit for bit, _ in parts))
    _INT.pack_into(header, kind.sequence, sequence)
    return bytes(header) + body


def parse_links(kind: Kind, listing: bytes) -> Iterator[Link]:
    """Yield the interfaces of a NET_RT_IFLIST."""
    counters = kind.counters
    for message in _messages(listing, {kind.links.type: kind.links}, kind):
        name = message.parts.get(RTA_IFP, b"")
        if len(name) < _SDL.size:
            continue
        (mtu,) = counters.mtu_format.unpack_from(message.data, counters.mtu)
        (dropped,) = counters.dropped_format.unpack_from(message.data, counters.dropped)
        _, _, _, kind_of, length, _, _ = _SDL.unpack_from(name)
        yield Link(
            name=name[_SDL.size : _SDL.size + length].decode(errors="surrogateescape"),
            index=message.index,
            flags=message.flags,
            type=kind_of,
            mtu=mtu,
            statistics=AdapterStatistics(  # The system sends the packets that the program receives.
                received_packets=_count(message.data, counters.opackets),
                received_bytes=_count(message.data, counters.obytes),
                received_dropped=dropped,
                sent_packets=_count(message.data, counters.ipackets),
                sent_bytes=_count(message.data, counters.ibytes),
                sent_dropped=_count(message.data, counters.ierrors),
            ),
        )


def parse_addresses(kind: Kind, listing: bytes) -> Iterator[tuple[int, Address]]:
    """Yield the index of an interface and an address of it, for all addresses of a NET_RT_IFLIST."""
    for message in _messages(listing, {known.type: known for known in kind.addresses}, kind):
        address = address_of(message.parts.get(RTA_IFA, b""), kind)
        if address is not None:
            prefix = _prefix(message.parts.get(RTA_NETMASK, b""), address.version)
            yield message.index, ipaddress.ip_interface((address, prefix))


def parse_routes(kind: Kind, listing: bytes) -> Iterator[Route]:
    """Yield the routes of a NET_RT_DUMP."""
    layouts = dict.fromkeys(range(256), kind.routes)  # RTM_GET, and RTM_ADD on some systems.
    for message in _messages(listing, layouts, kind):
        address = address_of(message.parts.get(RTA_DST, b""), kind)
        if address is None:
            continue
        prefix: int = address.max_prefixlen
        if not message.flags & RTF_HOST:
            prefix = _prefix(message.parts.get(RTA_NETMASK, b""), address.version)
        network = ipaddress.ip_network((address, prefix), strict=False)
        yield Route(message.index, network, message.flags, message.parts.get(RTA_GATEWAY, b""))


@dataclass(frozen=True, slots=True)
class _Parsed:
    index: int
    flags: int
    data: bytes
    parts: dict[int, bytes]
    """Socket addresses by their bit of RTA_DST and its like."""


def _messages(listing: bytes, layouts: dict[int, Message], kind: Kind) -> Iterator[_Parsed]:
    """Yield the messages of known types; a damaged one ends the list."""
    while len(listing) >= 4:
        length, _, number = struct.unpack_from("HBB", listing)
        if length < 4 or length > len(listing):
            return
        data, listing = listing[:length], listing[length:]
        layout = layouts.get(number)
        if layout is None or length < layout.size:
            continue
        size = _SHORT.unpack_from(data, 4)[0] if kind.has_header_length else layout.size
        parts = _parts(data[size:], _INT.unpack_from(data, layout.addrs)[0], kind.alignment)
        flags = _INT.unpack_from(data, layout.flags)[0]
        yield _Parsed(_SHORT.unpack_from(data, layout.index)[0], flags, data, parts)


def _parts(data: bytes, present: int, alignment: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for bit in (1 << place for place in range(8)):
        if present & bit and data:
            length = data[0]
            found[bit] = data[:length]
            data = data[max(alignment, length + -length % alignment) :]
    return found


def address_of(part: bytes, kind: Kind) -> IpAddress | None:
    """Return the IP address of a socket address, None for one of another family."""
    if len(part) < 2 or part[1] not in (AF_INET, kind.inet6):
        return None
    if part[1] == AF_INET:
        return ipaddress.IPv4Address(part[_IPV4 : _IPV4 + 4].ljust(4, b"\0"))
    packed = bytearray(part[_IPV6 : _IPV6 + 16].ljust(16, b"\0"))
    if packed[0] == 0xFE and packed[1] & 0xC0 == 0x80:
        packed[2:4] = bytes(2)  # The KAME stack keeps the interface's index there.
    return ipaddress.IPv6Address(bytes(packed))


def _prefix(part: bytes, version: int) -> int:
    """Return the prefix length of a netmask, which ends at its last byte that is not 0, and has no family."""
    mask = part[_IPV4 : _IPV4 + 4] if version == 4 else part[_IPV6 : _IPV6 + 16]
    return sum(byte.bit_count() for byte in mask)


def _count(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], sys.byteorder)
