"""Conversion of addresses and texts between Python and Windows' structures."""

import ctypes
import ipaddress
from ctypes import c_uint16

from threepipe.platforms.windows import structures as win

__all__ = ["IpAddress", "ip_of", "socket_address", "text_of", "wide"]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def socket_address(address: IpAddress) -> win.SOCKADDR_INET:
    """Return `address` as a SOCKADDR_INET with port, flow and scope 0."""
    packed = win.SOCKADDR_INET()
    if address.version == 4:
        packed.si_family = win.AF_INET
        packed.Ipv4.sin_addr[:] = address.packed
    else:
        packed.si_family = win.AF_INET6
        packed.Ipv6.sin6_addr[:] = address.packed
    return packed


def ip_of(packed: win.SOCKADDR_INET) -> IpAddress:
    """Return the address in `packed`, without the scope of a link-local address."""
    if packed.si_family == win.AF_INET:
        return ipaddress.IPv4Address(bytes(packed.Ipv4.sin_addr))
    return ipaddress.IPv6Address(bytes(packed.Ipv6.sin6_addr))


def text_of(characters: "ctypes.Array[c_uint16]") -> str:
    """Return the text in an array of 16-bit characters, up to its zero."""
    return bytes(characters).decode("utf-16-le", "surrogatepass").partition("\0")[0]


def wide(text: str) -> "ctypes.Array[c_uint16]":
    """Return `text` as zero-terminated 16-bit characters, to be passed to Windows as a pointer."""
    encoded = f"{text}\0".encode("utf-16-le", "surrogatepass")
    return (c_uint16 * (len(encoded) // 2)).from_buffer_copy(encoded)
