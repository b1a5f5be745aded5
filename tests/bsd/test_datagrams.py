"""recvmsg_x and sendmsg_x as macOS reads their arguments, by stand-ins over a pair of sockets."""

import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from threepipe.core.packet import Packet
from threepipe.platforms.bsd.datagrams import MAX_DATAGRAMS, NativeDatagrams
from threepipe.platforms.bsd.native import NativeSystem


class Buffer(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class Message(ctypes.Structure):
    """`struct msghdr_x`, by XNU's bsd/sys/socket_private.h."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(Buffer)),
        ("iovlen", ctypes.c_int),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_uint32),
        ("flags", ctypes.c_int),
        ("datalen", ctypes.c_size_t),
    )


class Mac:
    """The calls of a Mac on the sockets of this system."""

    def __init__(self) -> None:
        self.interruptions = 0

    def receive(self, descriptor: int, address: int, count: int, flags: int) -> int:
        done = self._each(address, count, flags, lambda memory: os.readv(descriptor, [memory]))
        for message in (Message * max(done, 0)).from_address(address):
            message.flags = 0x10  # Releases before macOS 14 leave flags here.
        return done

    def send(self, descriptor: int, address: int, count: int, flags: int) -> int:
        return self._each(address, count, flags, lambda memory: os.writev(descriptor, [memory]))

    def _each(self, address: int, count: int, flags: int, act: Any) -> int:
        assert (flags, 0 < count <= MAX_DATAGRAMS) == (0, True)
        if self.interruptions:
            self.interruptions -= 1
            ctypes.set_errno(errno.EINTR)
            return -1
        for done, message in enumerate((Message * count).from_address(address)):
            unused = (message.name, message.namelen, message.control, message.controllen, message.flags)
            assert unused == (None, 0, None, 0, 0)
            assert message.iovlen == 1
            buffer = message.iov[0]
            try:
                message.datalen = act((ctypes.c_char * buffer.size).from_address(buffer.base))
            except OSError as error:
                if done:
                    return done
                ctypes.set_errno(error.errno or 0)
                return -1
        return count


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


def datagrams() -> tuple[NativeDatagrams, Mac]:
    mac = Mac()
    return NativeDatagrams(mac.receive, mac.send), mac


def test_datagrams_are_gathered_from_headers_and_packets(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    calls, _ = datagrams()
    for _ in range(2):
        packets: list[Packet] = [b"first", bytearray(b"second one"), memoryview(b"_third_")[1:-1]]
        assert calls.send(left.fileno(), [(b"head", packet) for packet in packets]) == 3
        assert [right.recv(100) for _ in packets] == [b"headfirst", b"headsecond one", b"headthird"]


def test_datagrams_are_received_into_parts_of_the_memory_and_cut(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    calls, _ = datagrams()
    for size in (20, 20, 30):
        for text in (b"first", b"x" * 40, b"third"):
            left.send(text)
        memory = memoryview(bytearray(4 * size + 1))
        assert list(calls.receive(right.fileno(), memory, size)) == [5, size, 5]
        starts = range(0, 3 * size, size)
        assert [bytes(memory[at : at + 5]) for at in starts] == [b"first", b"xxxxx", b"third"]
        assert not any(memory[size * 3 :])


def test_no_more_is_received_than_fits(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    calls, _ = datagrams()
    for number in range(4):
        left.send(bytes([number]))
    memory = memoryview(bytearray(25))
    assert list(calls.receive(right.fileno(), memory, 10)) == [1, 1]
    assert list(calls.receive(right.fileno(), memory, 10)) == [1, 1]
    assert (memory[0], memory[10]) == (2, 3)


def test_memory_is_free_again_after_a_call(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    calls, _ = datagrams()
    left.send(b"text")
    owner = bytearray(40)
    assert list(calls.receive(right.fileno(), memoryview(owner), 10)) == [4]
    owner.append(0)  # BufferError if a view were left.
    assert len(owner) == 41


def test_an_error_is_raised_and_an_interruption_is_not(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    calls, mac = datagrams()
    with pytest.raises(BlockingIOError):
        calls.receive(right.fileno(), memoryview(bytearray(40)), 10)
    mac.interruptions = 2
    assert calls.send(left.fileno(), [(b"head", b"text")]) == 1
    mac.interruptions = 1
    assert list(calls.receive(right.fileno(), memoryview(bytearray(40)), 10)) == [8]
    right.close()
    with pytest.raises(ConnectionError):
        calls.send(left.fileno(), [(b"head", b"text")])


def test_a_library_without_the_calls_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: SimpleNamespace())
    assert NativeSystem().datagrams() is None


def test_a_library_with_the_calls_is_used(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = pair
    prototype = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
    mac = Mac()
    library = SimpleNamespace(recvmsg_x=prototype(mac.receive), sendmsg_x=prototype(mac.send))
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: library)
    calls = NativeSystem().datagrams()
    assert calls is not None
    assert calls.send(left.fileno(), [(b"head", b"text")]) == 1
    assert right.recv(100) == b"headtext"
