"""The few functions of the system that the platform calls, as one argument.

Everything else in this folder but `native` runs on any POSIX system with that argument, so it can be driven over a
model of a kernel, and over a foreign kernel. Errors are `OSError` with the error numbers of this Python's `errno`; all
other numbers are those of the system that is driven.
"""

from collections.abc import Sequence
from typing import Protocol

from threepipe.core.packet import Packet
from threepipe.net.watch import Watch

__all__ = ["Datagrams", "System"]


class Datagrams(Protocol):
    """Calls for several datagrams of a socket at once. One thread at a time receives, and one sends."""

    def receive(self, descriptor: int, memory: memoryview, size: int) -> Sequence[int]:
        """Receive datagrams into parts of `memory` of `size` bytes each, in order; return how many bytes each has.

        A longer datagram is cut. An empty sequence stands for the end. Raises `OSError`.
        """

    def send(self, descriptor: int, datagrams: Sequence[tuple[bytes, Packet]]) -> int:
        """Send datagrams, each of a header and a packet, in order, and return how many were sent: one at least.

        Raises `OSError` if none was.
        """


class System(Protocol):
    """A BSD's system calls. Every method raises `OSError`."""

    def open(self, path: str) -> int:
        """Open a device to read and write, with O_NONBLOCK; return its descriptor, which programs do not inherit."""

    def socket(self, family: int, kind: int, protocol: int) -> int:
        """Return the descriptor of a new socket, which programs do not inherit."""

    def connect_control(self, descriptor: int, number: int, unit: int) -> None:
        """Connect a socket of macOS' AF_SYSTEM to a unit of the kernel control with that number."""

    def set_option(self, descriptor: int, level: int, option: int, value: bytes) -> None:
        """Set an option of a socket of a kernel control; see setsockopt(2)."""

    def get_option(self, descriptor: int, level: int, option: int, size: int) -> bytes:
        """Return an option, of at most `size` bytes, of a socket of a kernel control; see getsockopt(2)."""

    def ioctl(self, descriptor: int, request: int, argument: bytes) -> bytes:
        """Call ioctl with a structure and return the structure afterwards; FIONBIO is for sockets too."""

    def sysctl(self, path: Sequence[int]) -> bytes:
        """Return the value at a path of numbers."""

    def readv(self, descriptor: int, buffers: Sequence[bytearray | memoryview], /) -> int:
        """Read once from a device or a routing socket into the buffers in turn, and return the number of bytes."""

    def writev(self, descriptor: int, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Write the buffers at once and return the number of bytes."""

    def datagrams(self) -> Datagrams | None:
        """Return recvmsg_x and sendmsg_x for one socket of macOS; None if the system has no such calls."""

    def watch(self) -> Watch:
        """Return something that waits for descriptors of devices and routing sockets."""

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
