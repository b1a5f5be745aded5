"""The calls of the real system, as far as every POSIX system has them."""

import ctypes
import errno
import os
import struct
from typing import Any

import pytest

from threepipe.platforms.bsd.native import NativeSystem


def test_a_device_is_opened_without_blocking_and_is_not_inherited() -> None:
    system = NativeSystem()
    descriptor = system.open(os.devnull)
    assert not os.get_inheritable(descriptor)
    assert not os.get_blocking(descriptor)
    system.close(descriptor)


def test_records_are_scattered_and_gathered() -> None:
    system = NativeSystem()
    reader, writer = os.pipe()
    assert system.writev(writer, [b"head", b"body"]) == 8
    head, body = bytearray(4), bytearray(10)
    assert system.readv(reader, [head, body]) == 8
    assert (bytes(head), bytes(body[:4])) == (b"head", b"body")
    system.close(reader)
    system.close(writer)


def test_an_ioctl_returns_the_structure_or_the_error() -> None:
    import termios

    system = NativeSystem()
    reader, writer = os.pipe()
    os.write(writer, b"12345")
    assert struct.unpack("i", system.ioctl(reader, termios.FIONREAD, bytes(4))) == (5,)
    system.close(reader)
    system.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        system.ioctl(reader, termios.FIONREAD, bytes(4))


def test_a_socket_is_not_inherited() -> None:
    system = NativeSystem()
    descriptor = system.socket(2, 2, 0)
    assert not os.get_inheritable(descriptor)
    system.close(descriptor)


class Library:
    """A C library whose sysctl has a value that grows, or that refuses."""

    def __init__(self, values: list[bytes], refusal: int = 0) -> None:
        self.values = values
        self.refusal = refusal

    def sysctl(self, names: bytes, count: Any, value: Any, size: Any, new: object, length: object) -> int:
        assert struct.unpack("6i", names) == (4, 17, 0, 0, 3, 0)
        assert count.value == 6
        found = self.values[0] if len(self.values) == 1 else self.values.pop(0)
        if self.refusal or (value is not None and len(found) > size._obj.value):
            ctypes.set_errno(self.refusal or errno.ENOMEM)
            return -1
        if value is not None:
            ctypes.memmove(value, found, len(found))
        size._obj.value = len(found)
        return 0


PATH = (4, 17, 0, 0, 3, 0)


@pytest.mark.parametrize("values", [[b"12345"], [b"1", b"1" * 5000, b"12345"]])
def test_a_list_of_sysctl_is_read_again_when_it_has_grown(monkeypatch: pytest.MonkeyPatch, values: list[bytes]) -> None:
    library = Library(values)
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: library)
    assert NativeSystem().sysctl(PATH) == b"12345"


def test_a_refusal_of_sysctl_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: Library([b""], errno.EPERM))
    with pytest.raises(PermissionError):
        NativeSystem().sysctl(PATH)
