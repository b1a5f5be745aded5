"""PeerEndpoint: the address and UDP port of a peer, and its other forms: of sockets, of the native core, of cookies.

This file alone converts between them. It resolves no names.
"""

import ipaddress
import socket
from contextlib import suppress
from typing import TypeAlias

__all__ = [
    "NativeEndpoint",
    "PeerEndpoint",
    "SocketAddress",
    "cookie_sources",
    "from_native",
    "from_socket",
    "to_native",
    "to_socket",
    "with_zone_name",
]

_NETWORK_SIZE = 8  # Bytes of an IPv6 address that name the network.
_MEANINGFUL = frozenset("#%]")  # Characters of names that mean something in an endpoint or a file.

PeerEndpoint: TypeAlias = tuple[str, int]
"""An IP address as text, with its zone if IPv6 needs one, and a port."""
SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""An address as the socket module has it: with a scope, but without a zone in the text."""
NativeEndpoint: TypeAlias = tuple[bytes, int, int]
"""An address of 4 or 16 bytes, a port, and the scope of a link-local address."""


def to_socket(endpoint: PeerEndpoint) -> tuple[int, SocketAddress] | None:
    """Return the family and address for a socket; None if the endpoint cannot be reached, as if its zone is gone."""
    try:
        family, _, _, _, address = socket.getaddrinfo(*endpoint, 0, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)[0]
    except OSError:
        return None
    return family, address  # type: ignore[return-value]


def from_socket(address: SocketAddress) -> PeerEndpoint:
    """Return the endpoint for the source address of a datagram."""
    if len(address) == 4 and address[3]:
        return f"{address[0].partition('%')[0]}%{address[3]}", address[1]
    return address[0], address[1]


def with_zone_name(endpoint: PeerEndpoint) -> PeerEndpoint:
    """Return the endpoint with the name of an interface as its zone, as wg(8) shows it, in place of the index.

    The index may be that of another interface after a restart of the system.
    """
    address, _, zone = endpoint[0].partition("%")
    if zone.isdecimal():
        with suppress(OSError, OverflowError):
            name = socket.if_indextoname(int(zone))
            if not _MEANINGFUL.intersection(name):
                return f"{address}%{name}", endpoint[1]
    return endpoint


def to_native(endpoint: PeerEndpoint) -> NativeEndpoint | None:
    """Return the endpoint for the native core; None if it cannot be reached."""
    if (found := to_socket(endpoint)) is None:
        return None
    family, address = found
    host, scope = address[0].partition("%")[0], address[3] if len(address) == 4 else 0
    return socket.inet_pton(family, host), address[1], scope


def from_native(endpoint: NativeEndpoint) -> PeerEndpoint:
    """Return the endpoint for one of the native core."""
    address, port, scope = endpoint
    host = socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
    return f"{host}%{scope}" if scope else host, port


def cookie_sources(endpoint: PeerEndpoint) -> tuple[bytes, bytes]:
    """Return the bytes by which handshakes are limited and from which a cookie is made (section 5.4.7).

    The first is an IPv4 address, or the first 64 bits of an IPv6 address, as one host has all addresses of such a
    network (RFC 4291, section 2.5.1; Linux limits by the same). The second is the whole address and the port.
    """
    address = ipaddress.ip_address(endpoint[0].partition("%")[0]).packed
    return address[:_NETWORK_SIZE], address + endpoint[1].to_bytes(2, "big")
