"""Inherited descriptors (`fd`): finds out what they are, takes them over, and gives them a session.

Taken over means: closed with the session, and from then on not inherited by programs this one starts.
Whoever handed one over and has it open as well finds it blocking or not as it was, once the session is
closed; while it is open, packets go to whoever reads first. A descriptor that is refused stays as it was.
What a TUN device is, the platform knows.
"""

import io
import os
import re
import socket
import stat
from contextlib import ExitStack, closing

from threepipe import platforms
from threepipe.backend import Port
from threepipe.endpoints.caller import Caller
from threepipe.endpoints.datagram_port import DatagramPort
from threepipe.endpoints.request import Asked, Complaints
from threepipe.endpoints.stream import FileStream, SocketStream
from threepipe.endpoints.stream_port import StreamPort
from threepipe.errors import EndpointEnded, InvalidSetting
from threepipe.net.datagrams import Datagrams, Source
from threepipe.platforms import access_mode, open_datagrams, open_inherited
from threepipe.session import Session

__all__ = ["open_fd"]

_PLACE = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?")
_TAKEN = "fd takes a TUN device, a datagram socket, a connected stream, or two pipes, fd:READ:WRITE"
_SORTS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "one end of a pipe, which goes one way"),
    (stat.S_ISCHR, "a device, and no TUN device"),
    (stat.S_ISBLK, "a block device"),
)
"""How to tell, and what to call, what cannot be used."""
_FAMILIES = {getattr(socket, "AF_UNIX", None), socket.AF_INET, socket.AF_INET6}
_BARE_PROTOCOLS = {0, socket.IPPROTO_UDP}  # There are datagram sockets for others, such as ICMP.


def open_fd(asked: Asked) -> Session:
    """The descriptor of that number, or the two pipes of `READ:WRITE`.

    Packets pass on a TUN device as it has them, on datagram sockets one a datagram, on all else in records. A
    datagram socket that is not connected answers whoever sent the last packet. Raises `InvalidSetting`.
    """
    if not platforms.INHERITS_DESCRIPTORS:
        raise InvalidSetting("programs do not inherit descriptors on Windows; use tcp on the loopback address")
    if (match := _PLACE.fullmatch(asked.place)) is None:
        raise InvalidSetting(f"{asked.place!r} is no descriptor; write its number, as in fd:3, or fd:3:4 for two pipes")
    numbers = [int(number) for number in match.groups() if number is not None]
    with ExitStack() as undo:
        held = [undo.enter_context(closing(_Held(number))) for number in numbers]
        if len(numbers) == 1:
            port = _port(numbers[0], asked.complaints)
        else:
            port = _pair_port(numbers[0], numbers[1], asked.complaints)
        for number in numbers:
            os.set_inheritable(number, False)
        undo.pop_all()
    session = Session(port)
    for each in held:
        session.also_close(each)
    return session


class _Held:
    """A second descriptor of the same thing, by which it blocks again, if it did, when others have closed theirs."""

    def __init__(self, number: int) -> None:
        try:
            self._number = os.dup(number)
        except OSError as error:
            raise InvalidSetting(
                f"descriptor {number}: {error.strerror}; the program that starts this one has to leave it open"
            ) from None
        self._blocking = platforms.get_blocking(number)

    def close(self) -> None:
        platforms.set_blocking(self._number, self._blocking)
        os.close(self._number)


def _port(number: int, complaints: Complaints) -> Port:
    """A port on what goes both ways."""
    mode = os.fstat(number).st_mode
    if stat.S_ISSOCK(mode):
        return _socket_port(number, complaints)
    if stat.S_ISCHR(mode) and (port := open_inherited(number)) is not None:
        return port
    raise _unfit(number, mode)


def _unfit(number: int, mode: int) -> InvalidSetting:
    sort = next((name for is_sort, name in _SORTS if is_sort(mode)), "nothing that packets pass through")
    return InvalidSetting(f"descriptor {number} is {sort}; {_TAKEN}")


def _socket_port(number: int, complaints: Complaints) -> Port:
    with socket.socket(fileno=os.dup(number)) as probe:
        family, kind, protocol = probe.family, probe.type, probe.proto
        listens, connected = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), _is_connected(probe)
    if kind == socket.SOCK_DGRAM and family in _FAMILIES and protocol in _BARE_PROTOCOLS:
        return DatagramPort(open_datagrams(socket.socket(fileno=number)), complaints, listening=not connected)
    if kind == socket.SOCK_SEQPACKET and connected:
        return DatagramPort(_SequencedPackets(socket.socket(fileno=number)), complaints, listening=False)
    if kind == socket.SOCK_STREAM and connected:
        return StreamPort(complaints, Caller(SocketStream(socket.socket(fileno=number)), f"descriptor {number}"))
    if listens:
        raise InvalidSetting(f"descriptor {number} is a socket that listens; {_TAKEN}")
    raise InvalidSetting(
        f"descriptor {number} is a socket of another sort, or not connected (family {family}, type {kind}, protocol"
        f" {protocol}); {_TAKEN}"
    )


def _is_connected(probe: socket.socket) -> bool:
    try:
        probe.getpeername()
    except OSError:
        return False
    return True


class _SequencedPackets(Datagrams):
    """A connection that keeps packets apart (SOCK_SEQPACKET), which, unlike other datagrams, has an end."""

    _given = False  # Whether packets were given out that the caller may not have passed on yet.

    def receive(self, memory: memoryview, limit: int) -> tuple[list[memoryview], int, Source]:
        """Raises `EndpointEnded` as well, in a call of its own."""
        try:
            packets, size, source = super().receive(memory, limit)
        except BlockingIOError:
            self._given = False
            raise
        if not size and not self._given:
            raise EndpointEnded("the other end has closed its descriptor")
        self._given = bool(size)
        if not size:
            raise BlockingIOError
        return packets, size, source


def _pair_port(number: int, other: int, complaints: Complaints) -> Port:
    """A port on two pipes, or what else goes one way at least: the first to read from, the second to write to."""
    if number == other:
        raise InvalidSetting(f"fd:{number}:{other}: two descriptors are wanted; what goes both ways is fd:{number}")
    for each, unfit, doing in ((number, os.O_WRONLY, "read from"), (other, os.O_RDONLY, "written to")):
        mode = os.fstat(each).st_mode
        if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
            raise _unfit(each, mode)
        if access_mode(each) == unfit:
            raise InvalidSetting(f"descriptor {each} cannot be {doing}; is it fd:{other}:{number} that is meant?")
    stream = FileStream(io.FileIO(number, "r"), io.FileIO(other, "w"))
    return StreamPort(complaints, Caller(stream, f"descriptors {number} and {other}"))
