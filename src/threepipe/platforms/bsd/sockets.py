"""Sockets on macOS and the BSDs: their counterparts of Linux's marks, and sockets of one interface.

The numbers are those of the systems' <sys/socket.h> and of XNU's <netinet/in.h> and <netinet6/in6.h>, since the socket
module lacks them. wireguard-go uses the same ones for its fwmark.
"""

import errno
import socket
import struct
import sys

from threepipe.errors import EndpointError

__all__ = ["bind_to_interface", "mark_socket"]

SO_USER_COOKIE = 0x1015
SO_RTABLE = 0x1021
IP_BOUND_IF = 25
IPV6_BOUND_IF = 125

_MARKS = {"freebsd": SO_USER_COOKIE, "openbsd": SO_RTABLE}
_INTERFACES = {"darwin": (IP_BOUND_IF, IPV6_BOUND_IF)}
"""Start of sys.platform -> the option of IPv4 and that of IPv6, which take an index."""


def mark_socket(opened: socket.socket, mark: int) -> None:
    """Mark the socket's packets: on FreeBSD for ipfw, on OpenBSD by a routing table. Raises `EndpointError`."""
    option = next((option for name, option in _MARKS.items() if sys.platform.startswith(name)), None)
    if option is None:
        raise EndpointError(errno.ENOTSUP, "this system marks no packets; leave out the mark")
    try:
        opened.setsockopt(socket.SOL_SOCKET, option, struct.pack("I", mark))
    except OSError as error:
        raise EndpointError(
            error.errno,
            f"mark {mark}: {error.strerror}; run as root, and on OpenBSD give the number of a routing table",
        ) from None


def bind_to_interface(opened: socket.socket, name: str) -> None:
    """Send and receive by that interface only. Raises `EndpointError`."""
    options = next((options for system, options in _INTERFACES.items() if sys.platform.startswith(system)), None)
    if options is None:
        raise EndpointError(
            errno.ENOTSUP, "this system binds no socket to an interface; leave out interface=, and set a route instead"
        )
    ipv4, ipv6 = options
    try:
        index = socket.if_nametoindex(name)
        if opened.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, ipv6, index)
        else:
            opened.setsockopt(socket.IPPROTO_IP, ipv4, index)
    except OSError as error:
        raise EndpointError(error.errno, f"interface {name}: {error.strerror or error}; check its name") from None
