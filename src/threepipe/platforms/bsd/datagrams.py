"""recvmsg_x and sendmsg_x of macOS: several datagrams in one call.

No header of the SDK declares them. They are as in Apple's sources of the kernel (bsd/sys/socket_private.h): an array of
`struct msghdr_x` with a buffer for each datagram. Every Mac is a little-endian machine of 64 bits.
"""

import errno
import os
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate

from threepipe.core.packet import Packet

__all__ = ["MAX_DATAGRAMS", "NativeDatagrams", "find"]

MAX_DATAGRAMS = 64
"""Maximum number of datagrams of a call. macOS takes 100 or more, but for an administrator's choice."""

# struct msghdr_x: msg_name, msg_namelen, msg_iov, msg_iovlen, msg_control, msg_controllen and msg_flags, msg_datalen.
_WORDS = 7
_IOV, _IOVLEN, _FLAGS, _DATALEN = 2, 3, 5, 6
_ZEROS = array("Q", bytes(8 * MAX_DATAGRAMS))

Call = Callable[[int, int, int, int], int]
"""A function of C: descriptor, address of the array, number of datagrams, flags."""


class NativeDatagrams:
    """The calls for one socket. One thread at a time receives, and one sends."""

    def __init__(self, receive: Call, send: Call) -> None:
        self._receive, self._send = receive, send
        self._incoming, self._outgoing = _Messages(), _Messages()
        self._place = (0, 0, 0)
        """Address, size and number of the buffers that the incoming messages have."""

    def receive(self, descriptor: int, memory: memoryview, size: int) -> Sequence[int]:
        """Receive datagrams into parts of `memory` of `size` bytes each, in order; return how many bytes each has.

        A longer datagram is cut. An empty sequence stands for the end. Raises `OSError`.
        """
        messages = self._incoming
        place = _address(memory), size, min(len(memory) // size, MAX_DATAGRAMS)
        if place != self._place:
            messages.point_to(*place)
            self._place = place
        messages.headers[_FLAGS::_WORDS] = _ZEROS
        count = _call(self._receive, descriptor, messages.address, place[2])
        return messages.headers[_DATALEN : _WORDS * count : _WORDS]

    def send(self, descriptor: int, datagrams: Sequence[tuple[bytes, Packet]]) -> int:
        """Send up to `MAX_DATAGRAMS` datagrams, each of a header and a packet, and return how many were sent.

        Raises `OSError` if none was.
        """
        memory = bytearray().join([part for datagram in datagrams for part in datagram])
        sizes = array("Q", [len(header) + len(packet) for header, packet in datagrams])
        self._outgoing.gather(_address(memory), sizes)
        return _call(self._send, descriptor, self._outgoing.address, len(sizes))


class _Messages:
    """An array of `struct msghdr_x`, and one of `struct iovec` with a buffer for each."""

    def __init__(self) -> None:
        self._buffers = array("Q", bytes(16 * MAX_DATAGRAMS))
        self.headers = array("Q", bytes(8 * _WORDS * MAX_DATAGRAMS))
        first, _ = self._buffers.buffer_info()
        self.headers[_IOV::_WORDS] = array("Q", range(first, first + 16 * MAX_DATAGRAMS, 16))
        self.headers[_IOVLEN::_WORDS] = array("Q", [1]) * MAX_DATAGRAMS
        self.address, _ = self.headers.buffer_info()

    def point_to(self, address: int, size: int, count: int) -> None:
        """Have the first `count` messages use buffers of `size` bytes, which follow each other from `address` on."""
        self._buffers[: 2 * count : 2] = array("Q", range(address, address + count * size, size))
        self._buffers[1 : 2 * count : 2] = array("Q", [size]) * count

    def gather(self, address: int, sizes: "array[int]") -> None:
        """Have messages use buffers of these sizes, which follow each other from `address` on."""
        *starts, _ = accumulate(sizes, initial=address)
        self._buffers[: 2 * len(sizes) : 2] = array("Q", starts)
        self._buffers[1 : 2 * len(sizes) : 2] = sizes


def find() -> NativeDatagrams | None:
    """Return the calls of this system; None if it has none."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    try:
        calls = library.recvmsg_x, library.sendmsg_x
    except AttributeError:
        return None
    for call in calls:
        call.argtypes = ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int
        call.restype = ctypes.c_ssize_t
    return NativeDatagrams(*calls)


def _address(memory: bytearray | memoryview) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _errno() -> int:
    import ctypes

    return ctypes.get_errno()


def _call(function: Call, descriptor: int, address: int, count: int) -> int:
    """Call the function without flags: with MSG_DONTWAIT, macOS would lose datagrams of two senders at once."""
    while (done := function(descriptor, address, count, 0)) < 0:
        code = _errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return done
