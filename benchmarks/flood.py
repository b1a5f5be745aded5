"""The sender of `traffic.flood` and `traffic.burst`: small datagrams to one address, at full speed.

It runs inside the network of an adapter, and sends many in one system call. Answers come to its own socket, and are
dropped once that is full.
"""

import ctypes
import math
import os
import socket
import sys
import time

_AT_ONCE = 64
_PORT = 9  # An answer with swapped addresses has the same ports.
_NON_BLOCKING = socket.MSG_DONTWAIT


class _Vector(ctypes.Structure):
    """The `struct iovec` of <sys/uio.h>."""

    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """The `struct msghdr` of <sys/socket.h>."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """The `struct mmsghdr` of <sys/socket.h>."""

    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


def main(target: str, size: int, seconds: float, datagrams: float = math.inf) -> None:
    payload = _Vector(bytes(size), size)
    header = _Header(vectors=ctypes.pointer(payload), vector_count=1)
    messages = (_Message * _AT_ONCE)(*[_Message(header)] * _AT_ONCE)
    sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", _PORT))
        sock.connect((target, _PORT))
        number, end = sock.fileno(), time.monotonic() + seconds
        while datagrams and time.monotonic() < end:
            sent = sendmmsg(number, messages, int(min(_AT_ONCE, datagrams)), _NON_BLOCKING)
            if sent < 0:
                os.sched_yield()  # No room; datagrams that do not fit the adapter's queue are dropped.
            else:
                datagrams -= sent


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:]))
