"""The opener of `fd`: it identifies inherited descriptors, takes them over, and makes a session of them.

A descriptor that is taken over closes with the session, and programs that this one starts do not inherit it. If
another process has the same file open, it finds O_NONBLOCK restored once the session is closed; until then each
packet goes to the first process that reads it. A descriptor that is refused stays as it was. The platform recognizes
TUN devices.
"""

import io
import os
import socket
import stat
from contextlib import ExitStack, closing

from threepipe import platforms
from threepipe.backend import Port
from threepipe.endpoints.connection import Connection
from threepipe.endpoints.datagram_port import DatagramPort
from threepipe.endpoints.listener import Listener
from threepipe.endpoints.request import OpenRequest, RateLimitedLog
from threepipe.endpoints.stream import FileStream, SocketStream
from threepipe.endpoints.stream_port import StreamPort
from threepipe.errors import EndpointEnded, InvalidSetting
from threepipe.net.connect import keep_alive
from threepipe.net.datagrams import Datagrams, Source
from threepipe.platforms import access_mode, open_datagrams, open_inherited
from threepipe.session import Session, close_with

__all__ = ["open_fd"]

_SUPPORTED = (
    "fd supports a TUN device, a datagram socket, a connected or listening stream socket, or two pipes (fd:READ:WRITE)"
)
_UNSUPPORTED = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "one end of a pipe, which goes one way"),
    (stat.S_ISCHR, "a device other than a TUN device"),
    (stat.S_ISBLK, "a block device"),
)
"""Predicates and names of the file types that cannot be used."""
_FAMILIES = {getattr(socket, "AF_UNIX", None), socket.AF_INET, socket.AF_INET6}
_PROTOCOLS = {0, socket.IPPROTO_UDP}  # Datagram sockets exist for others, such as ICMP.


def open_fd(request: OpenRequest[tuple[int, ...]]) -> Session:
    """Open one descriptor, or two pipes, first the one to read from.

    A TUN device passes packets in its own format, a datagram socket one per datagram, and a stream in records. On an
    unconnected datagram socket the sender of the last packet is the peer; a listening socket has one client at a time.
    Raises `InvalidSetting`.
    """
    if not platforms.INHERITS_DESCRIPTORS:
        raise InvalidSetting("programs do not inherit descriptors on Windows; use tcp at the loopback address")
    numbers = request.parameter
    with ExitStack() as undo:
        restorers = [undo.enter_context(closing(_BlockingRestorer(number))) for number in numbers]
        first, last = numbers[0], numbers[-1]
        port = _port(first, request.log) if len(numbers) == 1 else _pair_port(first, last, request.log)
        for number in numbers:
            os.set_inheritable(number, False)
        undo.pop_all()
    session = Session(port)
    for restorer in restorers:
        close_with(session, restorer)
    return session


class _BlockingRestorer:
    """A duplicate of a descriptor; closing it restores whether the open file blocks."""

    def __init__(self, number: int) -> None:
        try:
            self._number = os.dup(number)
        except OSError as error:
            raise InvalidSetting(
                f"descriptor {number}: {error.strerror}; the parent process must leave it open"
            ) from None
        self._blocking = platforms.get_blocking(number)

    def close(self) -> None:
        platforms.set_blocking(self._number, self._blocking)
        os.close(self._number)


def _port(number: int, log: RateLimitedLog) -> Port:
    """Return a port on a descriptor that goes both ways."""
    mode = os.fstat(number).st_mode
    if stat.S_ISSOCK(mode):
        return _socket_port(number, log)
    if stat.S_ISCHR(mode) and (port := open_inherited(number)) is not None:
        return port
    raise _unsupported(number, mode)


def _unsupported(number: int, mode: int) -> InvalidSetting:
    name = next((name for is_type, name in _UNSUPPORTED if is_type(mode)), "of an unknown type")
    return InvalidSetting(f"descriptor {number} is {name}; {_SUPPORTED}")


def _socket_port(number: int, log: RateLimitedLog) -> Port:
    with socket.socket(fileno=os.dup(number)) as probe:
        family, kind, protocol = probe.family, probe.type, probe.proto
        listens, connected = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), _is_connected(probe)
    if kind == socket.SOCK_DGRAM and family in _FAMILIES and protocol in _PROTOCOLS:
        return DatagramPort(open_datagrams(socket.socket(fileno=number)), log, listening=not connected)
    if kind == socket.SOCK_SEQPACKET and connected:
        return DatagramPort(_SequencedPackets(socket.socket(fileno=number)), log, listening=False)
    if kind == socket.SOCK_STREAM and connected:
        return StreamPort(log, Connection(SocketStream(socket.socket(fileno=number)), f"descriptor {number}"))
    if kind == socket.SOCK_STREAM and listens:
        return StreamPort(log, None, Listener(socket.socket(fileno=number), _accepted, log), reuse=True)
    raise InvalidSetting(
        f"descriptor {number} is an unsupported or unconnected socket (family {family}, type {kind}, protocol"
        f" {protocol}); {_SUPPORTED}"
    )


def _accepted(client: socket.socket) -> SocketStream:
    if client.family in (socket.AF_INET, socket.AF_INET6):
        keep_alive(client)
    return SocketStream(client)


def _is_connected(probe: socket.socket) -> bool:
    try:
        probe.getpeername()
    except OSError:
        return False
    return True


class _SequencedPackets(Datagrams):
    """A connection that keeps packet boundaries (SOCK_SEQPACKET) and, unlike other datagram sockets, has an end."""

    has_end = True
    _has_returned = False  # True if the last call returned packets, which an error now would hide.

    def receive(self, memory: memoryview, limit: int) -> tuple[list[memoryview], int, Source]:
        """Receive as `Datagrams` does. Raise `EndpointEnded` at the end, but not right after returning packets."""
        try:
            packets, size, source = super().receive(memory, limit)
        except BlockingIOError:
            self._has_returned = False
            raise
        if not size and not self._has_returned:
            raise EndpointEnded("the other end closed its descriptor")
        self._has_returned = bool(size)
        if not size:
            raise BlockingIOError
        return packets, size, source


def _pair_port(reading: int, writing: int, log: RateLimitedLog) -> Port:
    """Return a port that reads from one pipe or socket and writes to another."""
    for number, wrong_mode, use in ((reading, os.O_WRONLY, "read from"), (writing, os.O_RDONLY, "written to")):
        mode = os.fstat(number).st_mode
        if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
            raise _unsupported(number, mode)
        if access_mode(number) == wrong_mode:
            raise InvalidSetting(f"descriptor {number} cannot be {use}; did you mean fd:{writing}:{reading}?")
    stream = FileStream(io.FileIO(reading, "r"), io.FileIO(writing, "w"))
    return StreamPort(log, Connection(stream, f"descriptors {reading} and {writing}"))
