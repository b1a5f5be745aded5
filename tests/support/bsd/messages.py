"""The messages of the kernels' models: the lists of sysctl, and socket addresses."""

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_network

from tests.support.bsd.interfaces import Interface, IpAddress
from threepipe.platforms.bsd import kind as bsd
from threepipe.platforms.bsd.kind import IN6_IFREQ, Kind, Message
from threepipe.settings import Network

__all__ = ["RoutingMessage", "interface_list", "ip", "prefix_length", "route_list", "sockaddr"]


def interface_list(kind: Kind, release: int, interfaces: Iterable[Interface]) -> bytes:
    """Return a NET_RT_IFLIST: each interface, then its addresses."""
    return b"".join(_link(kind, each) + _addresses(kind, release, each) for each in interfaces)


def route_list(kind: Kind, interfaces: Iterable[Interface]) -> bytes:
    """Return a NET_RT_DUMP."""
    return b"".join(_routes(kind, each) for each in interfaces)


class RoutingMessage:
    """A message of the program about a route, whose layout is checked."""

    def __init__(self, kind: Kind, message: bytes) -> None:
        layout = kind.routes
        size, version, self.action = struct.unpack_from("HBB", message)
        assert (size, version) == (len(message), kind.version)
        if kind.has_header_length:
            assert struct.unpack_from("H", message, 4) == (layout.size,)
        self.flags: int
        self.flags, present = (struct.unpack_from("i", message, at)[0] for at in (layout.flags, layout.addrs))
        parts, rest = dict[int, bytes](), message[layout.size :]
        for bit in (1, 2, 4, 16):
            if present & bit:
                parts[bit] = rest[: rest[0]]
                rest = rest[rest[0] + -rest[0] % kind.alignment :]
        assert not rest, "bytes behind the last socket address"
        address = ip(kind, parts[bsd.RTA_DST])
        is_host = self.flags & bsd.RTF_HOST
        prefix = address.max_prefixlen if is_host else prefix_length(ip(kind, parts[bsd.RTA_NETMASK]))
        self.network: Network = ip_network((address, prefix))
        self.gateway = parts.get(bsd.RTA_GATEWAY)
        self.interface = parts.get(bsd.RTA_IFP)
        """The socket address of an interface."""


def _link(kind: Kind, interface: Interface) -> bytes:
    counters, name = kind.counters, interface.name.encode()
    layout = kind.links
    body = bytearray(layout.size)
    counters.mtu_format.pack_into(body, counters.mtu, interface.mtu)
    for each, count in interface.counts.items():
        form = counters.dropped_format if each == "dropped" else struct.Struct("Q")
        form.pack_into(body, getattr(counters, each), count)
    link = struct.pack("BBHBBBB", 8 + len(name), bsd.AF_LINK, interface.index, interface.type, len(name), 0, 0)
    return _message(kind, layout, interface.index, interface.flags, {0x10: link + name}, body)


def _addresses(kind: Kind, release: int, interface: Interface) -> bytes:
    layout, found = kind.addresses[release], b""
    for address, prefix in interface.addresses.items():
        parts = {bsd.RTA_NETMASK: _mask(kind, address, prefix), bsd.RTA_IFA: sockaddr(kind, address)}
        found += _message(kind, layout, interface.index, 0, parts, bytearray(layout.size))
    return found


def _routes(kind: Kind, interface: Interface) -> bytes:
    layout, found = kind.routes, b""
    for network, (flags, gateway) in interface.routes.items():
        parts = {bsd.RTA_DST: sockaddr(kind, network.network_address), bsd.RTA_GATEWAY: gateway or bytes(4)}
        if not flags & bsd.RTF_HOST:
            parts[bsd.RTA_NETMASK] = _mask(kind, network.network_address, network.prefixlen)
        found += _message(kind, layout, interface.index, flags, parts, bytearray(layout.size))
    return found


def _message(kind: Kind, layout: Message, index: int, flags: int, parts: dict[int, bytes], header: bytearray) -> bytes:
    body = b"".join(
        part + bytes((-len(part) % kind.alignment) or (0 if part else kind.alignment)) for part in parts.values()
    )
    struct.pack_into("HBB", header, 0, len(header) + len(body), kind.version, layout.type)
    if kind.has_header_length:
        struct.pack_into("H", header, 4, len(header))
    struct.pack_into("H", header, layout.index, index)
    struct.pack_into("i", header, layout.flags, flags)
    struct.pack_into("i", header, layout.addrs, sum(parts))
    return bytes(header) + body


def sockaddr(kind: Kind, address: IpAddress) -> bytes:
    if address.version == 4:
        return struct.pack("BBH", 16, bsd.AF_INET, 0) + address.packed + bytes(8)
    packed = bytearray(address.packed)
    if address.is_link_local:
        packed[3] = 1  # The interface's index.
    return struct.pack("BBHI", 28, kind.inet6, 0, 0) + bytes(packed) + bytes(4)


def _mask(kind: Kind, address: IpAddress, prefix: int) -> bytes:
    """Return a netmask as kernels have them: without a family, ending at the last byte that is not 0."""
    mask = ip_network((address, prefix), strict=False).netmask.packed.rstrip(b"\0")
    size = (4 if address.version == 4 else 8) + len(mask) if mask else 0
    return bytes([size]) + bytes(3 if address.version == 4 else 7) + mask if mask else b"\0" * kind.alignment


def ip(kind: Kind, part: bytes) -> IpAddress:
    """Return the address of a socket address, whose length is checked."""
    sizes = {bsd.AF_INET: 16, kind.inet6: 28}
    assert part[0] == sizes[part[1]], "a socket address of a wrong length"
    return IPv4Address(part[4:8]) if part[1] == bsd.AF_INET else IPv6Address(part[8:24])


def prefix_length(mask: IpAddress) -> int:
    return int(mask).bit_count()


assert IN6_IFREQ == 288
