"""The system calls of the BSD that this Python runs on."""

import sys

assert sys.platform != "win32"

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence

from threepipe.net.watch import Watch
from threepipe.platforms.bsd import datagrams

__all__ = ["NativeSystem"]

_AF_SYSTEM, _SYSPROTO_CONTROL = 32, 2
_TRIES = 10  # A list that grows while it is read is read again.


class NativeSystem:
    """The system that this Python runs on."""

    readv = staticmethod(os.readv)
    writev = staticmethod(os.writev)
    close = staticmethod(os.close)
    watch = staticmethod(Watch)
    datagrams = staticmethod(datagrams.find)

    def open(self, path: str) -> int:
        return os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def socket(self, family: int, kind: int, protocol: int) -> int:
        return socket.socket(family, kind, protocol).detach()

    def connect_control(self, descriptor: int, number: int, unit: int) -> None:
        with _control(descriptor) as control:
            control.connect((number, unit))

    def set_option(self, descriptor: int, level: int, option: int, value: bytes) -> None:
        with _control(descriptor) as control:
            control.setsockopt(level, option, value)

    def get_option(self, descriptor: int, level: int, option: int, size: int) -> bytes:
        with _control(descriptor) as control:
            return control.getsockopt(level, option, size)

    def ioctl(self, descriptor: int, request: int, argument: bytes) -> bytes:
        return fcntl.ioctl(descriptor, request, argument)

    def sysctl(self, path: Sequence[int]) -> bytes:
        import ctypes

        call = ctypes.CDLL(None, use_errno=True).sysctl
        names = struct.pack(f"{len(path)}i", *path)
        size = ctypes.c_size_t()
        for _ in range(_TRIES):
            if call(names, ctypes.c_uint(len(path)), None, ctypes.byref(size), None, ctypes.c_size_t(0)):
                break
            size.value += size.value // 8 + 1024
            value = ctypes.create_string_buffer(size.value)
            if not call(names, ctypes.c_uint(len(path)), value, ctypes.byref(size), None, ctypes.c_size_t(0)):
                return value.raw[: size.value]
            if ctypes.get_errno() != errno.ENOMEM:
                break
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _control(descriptor: int) -> socket.socket:
    """Return a socket object for a second descriptor of a socket of a kernel control; see `darwin`."""
    return socket.socket(_AF_SYSTEM, socket.SOCK_DGRAM, _SYSPROTO_CONTROL, fileno=os.dup(descriptor))
