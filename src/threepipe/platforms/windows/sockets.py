"""Sockets on Windows: large buffers, and runs of datagrams in one system call (UDP segmentation offload, USO).

Receives one datagram a call: joined ones (URO) come by WSARecvMsg alone, which the socket module does not have.
The constant is that of <ws2ipdef.h> of Windows 10, build 19041, and newer; older Windows, and Wine, refuse it.
"""

import socket
from collections.abc import Sequence

from threepipe.net.datagrams import Datagrams, RunDatagrams, Source

__all__ = ["WindowsDatagrams", "enlarge_buffers", "open_datagrams"]

UDP_SEND_MSG_SIZE = 2

_BUFFER = 1 << 22  # Bytes.
_COMMON_MTU = 1500  # Longer datagrams may have to be fragmented, which is not what segmentation is for.
_HEADERS = {socket.AF_INET: 20 + 8, socket.AF_INET6: 40 + 8}


def enlarge_buffers(opened: socket.socket) -> None:
    """Let as much wait in the system as an adapter's session holds."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        opened.setsockopt(socket.SOL_SOCKET, option, _BUFFER)


def open_datagrams(bound: socket.socket) -> Datagrams:
    """The best there is for `bound`, a datagram socket, which it takes over."""
    return WindowsDatagrams(bound) if bound.family in _HEADERS else Datagrams(bound)


class WindowsDatagrams(RunDatagrams):
    """A UDP socket.

    How long segments are is the socket's, and not told with each run: all that is sent and longer is cut. So it is
    changed only where it has to be, which is when the size of the runs changes, and for a datagram that is longer.
    """

    def __init__(self, bound: socket.socket) -> None:
        super().__init__(bound, _COMMON_MTU - _HEADERS[bound.family])
        enlarge_buffers(bound)
        self._segment = 0  # What the socket cuts at, in bytes; 0: not at all.
        try:
            self._cut_at(0)
        except OSError:
            self.longest_segment = 0

    def send_together(self, packets: Sequence[memoryview], size: int, target: Source) -> None:
        if self._segment != size:
            self._cut_at(size)
        super().send_one(memoryview(b"".join(packets)), target)

    def send_one(self, packet: memoryview, target: Source) -> None:
        if 0 < self._segment < len(packet):
            self._cut_at(0)
        super().send_one(packet, target)

    def _cut_at(self, segment: int) -> None:
        self.socket.setsockopt(socket.IPPROTO_UDP, UDP_SEND_MSG_SIZE, segment)
        self._segment = segment
