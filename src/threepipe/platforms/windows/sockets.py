"""Sockets on Windows: large buffers, and sending runs of datagrams per system call (UDP segmentation offload, USO).

Datagrams are received one per call: joined datagrams (URO) need WSARecvMsg, which the socket module lacks. The
constant is from <ws2ipdef.h> of Windows 10, build 19041, and newer; older Windows and Wine refuse it.
"""

import socket
from collections.abc import Sequence

from threepipe.net.datagrams import Datagrams, RunDatagrams, Source

__all__ = ["WindowsDatagrams", "enlarge_buffers", "open_datagrams"]

UDP_SEND_MSG_SIZE = 2

_BUFFER = 1 << 22  # Bytes.
_COMMON_MTU = 1500  # Longer datagrams might get fragmented, so they are not sent in runs.
_HEADERS = {socket.AF_INET: 20 + 8, socket.AF_INET6: 40 + 8}


def enlarge_buffers(opened: socket.socket) -> None:
    """Give the socket buffers as large as a session's."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        opened.setsockopt(socket.SOL_SOCKET, option, _BUFFER)


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

    def send_one(self, packet: memoryview, target: Source) -> None:
        if 0 < self._segment < len(packet):
            self._set_segment(0)
        super().send_one(packet, target)

    def _set_segment(self, segment: int) -> None:
        self.socket.setsockopt(socket.IPPROTO_UDP, UDP_SEND_MSG_SIZE, segment)
        self._segment = segment
