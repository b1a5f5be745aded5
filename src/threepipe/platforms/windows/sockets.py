"""Sockets on Windows: large buffers, and sending runs of datagrams per system call (UDP segmentation offload, USO).

Datagrams are received one per call: joined datagrams (URO) need WSARecvMsg, which the socket module lacks. The
constants are from <ws2ipdef.h>; UDP_SEND_MSG_SIZE exists since Windows 10, build 19041, and older Windows and Wine
refuse it.
"""

import errno
import socket
import struct
from collections.abc import Sequence
from typing import NoReturn

from threepipe.core.packet import Packet
from threepipe.errors import EndpointError
from threepipe.net.datagrams import Datagrams, RunDatagrams, Source
from threepipe.platforms.windows.iphelper import system

__all__ = ["WindowsDatagrams", "bind_to_interface", "enlarge_buffers", "mark_socket", "open_datagrams"]

IP_UNICAST_IF = 31
IPV6_UNICAST_IF = 31
UDP_SEND_MSG_SIZE = 2

_BUFFER = 1 << 22  # Bytes.
_COMMON_MTU = 1500  # Longer datagrams might get fragmented, so they are not sent in runs.
_HEADERS = {socket.AF_INET: 20 + 8, socket.AF_INET6: 40 + 8}


def enlarge_buffers(opened: socket.socket) -> None:
    """Give the socket buffers as large as a session's."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        opened.setsockopt(socket.SOL_SOCKET, option, _BUFFER)


def mark_socket(opened: socket.socket, mark: int) -> NoReturn:
    """Raise `EndpointError`."""
    raise EndpointError(errno.ENOTSUP, "Windows marks no packets; use interface= in place of the mark")


def bind_to_interface(opened: socket.socket, name: str) -> None:
    """Send by that interface, whatever the routes say; datagrams from others still arrive. Raises `EndpointError`."""
    helper = system()
    if (luid := helper.luid_of(name)) is None:
        raise EndpointError(errno.ENODEV, f"interface {name}: there is none of that name; see Get-NetAdapter")
    index = helper.index_of(luid)
    options = [(socket.IPPROTO_IP, IP_UNICAST_IF, struct.pack("!I", index))]  # In network byte order.
    if opened.family == socket.AF_INET6:
        options.insert(0, (socket.IPPROTO_IPV6, IPV6_UNICAST_IF, struct.pack("=I", index)))
    for number, option in enumerate(options):
        try:
            opened.setsockopt(*option)
        except OSError as error:
            if not number:  # The other one is for IPv4 peers of an IPv6 socket, which not every one has.
                raise EndpointError(
                    error.errno, f"interface {name}: {error.strerror or error}; check its state"
                ) from None


def open_datagrams(bound: socket.socket) -> Datagrams:
    """Return the fastest `Datagrams` for the datagram socket `bound`, which it owns from then on."""
    return WindowsDatagrams(bound) if bound.family in _HEADERS else Datagrams(bound)


class WindowsDatagrams(RunDatagrams):
    """A UDP socket that sends runs of datagrams.

    The segment size is an option of the socket, not of a run, and cuts everything longer that is sent. So it changes
    only for a run of another size, and for a single datagram that is longer.
    """

    def __init__(self, bound: socket.socket) -> None:
        super().__init__(bound, _COMMON_MTU - _HEADERS[bound.family])
        enlarge_buffers(bound)
        self._segment = 0  # The segment size in bytes that the socket has; 0: none.
        try:
            self._set_segment(0)
        except OSError:
            self.longest_segment = 0

    def send_together(self, packets: Sequence[memoryview], size: int, target: Source) -> None:
        if self._segment != size:
            self._set_segment(size)
        super().send_one(memoryview(b"".join(packets)), target)

    def send_one(self, packet: Packet, target: Source) -> None:
        if 0 < self._segment < len(packet):
            self._set_segment(0)
        super().send_one(packet, target)

    def _set_segment(self, segment: int) -> None:
        self.socket.setsockopt(socket.IPPROTO_UDP, UDP_SEND_MSG_SIZE, segment)
        self._segment = segment
