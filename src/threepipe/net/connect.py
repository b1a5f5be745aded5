"""Where sockets connect to and listen: HOST:PORT, and paths of Unix sockets. Knows no packets.

A listener without a host binds the loopback address.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from threepipe.errors import EndpointError, InvalidSetting

__all__ = ["Place", "bind", "connect", "connect_unix", "listen_unix", "parse_place"]

LOOPBACK = "127.0.0.1"
_PATIENCE = 10.0  # Seconds until a connection is there, or is not.
_BACKLOG = 128


class Place(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_place(text: str, *, listening: bool) -> Place:
    """`HOST:PORT`, `[IPv6]:PORT` or, if `listening`, `PORT` alone. Raises `InvalidSetting`."""
    host, colon, port = text.rpartition(":")
    if not colon and listening:
        host = LOOPBACK
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidSetting(f"{text!r}: an IPv6 address stands in brackets, as in [::1]:4242")
    if (
        not host
        or not port.isascii()
        or not port.isdigit()
        or len(port) > 5
        or int(port) > 0xFFFF
        or not (int(port) or listening)
    ):
        example = "4242, 127.0.0.1:4242 or [::]:4242" if listening else "vpn.example.org:4242 or [::1]:4242"
        raise InvalidSetting(f"{text!r} is no place for this kind; write it like {example}")
    return Place(host, int(port))


def connect(place: Place, kind: socket.SocketKind, source: Place | None = None) -> socket.socket:
    """A socket connected to `place`, from `source` if that is given. Raises `EndpointError`."""
    with explained(f"connecting to {place}", _NOT_CONNECTED):
        if kind == socket.SOCK_STREAM:
            connected = socket.create_connection(place, _PATIENCE)
            keep_alive(connected)
            return connected
        family, _, _, _, address = socket.getaddrinfo(*place, type=kind)[0]
        with _closing_on_error(socket.socket(family, kind)) as datagrams:
            if source is not None:
                datagrams.bind(socket.getaddrinfo(*source, family, kind)[0][4])
            datagrams.connect(address)
            return datagrams


def bind(place: Place, kind: socket.SocketKind) -> socket.socket:
    """A socket bound to `place`, which listens if it is one for streams. Raises `EndpointError`."""
    with explained(f"listening at {place}", _NOT_BOUND):
        family, _, _, _, address = socket.getaddrinfo(*place, type=kind, flags=socket.AI_PASSIVE)[0]
        with _closing_on_error(socket.socket(family, kind)) as bound:
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            if kind == socket.SOCK_STREAM and os.name == "posix":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            if kind == socket.SOCK_STREAM:
                bound.listen(_BACKLOG)
            return bound


def keep_alive(connected: socket.socket) -> None:
    """Send what there is at once, and find out within half a minute that the other end has vanished."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Seconds until the first probe, between probes, and how many; milliseconds that data may stay unanswered.
    for option, value in (("KEEPIDLE", 10), ("KEEPINTVL", 5), ("KEEPCNT", 3), ("USER_TIMEOUT", 25_000)):
        if (number := getattr(socket, f"TCP_{option}", None)) is not None:
            try:
                connected.setsockopt(socket.IPPROTO_TCP, number, value)
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:
                    raise
                # Python knows the option and this system does not: then it takes the system's own time.


def connect_unix(path: str) -> socket.socket:
    """A socket connected to the Unix socket `path`. Raises `EndpointError`."""
    with explained(f"connecting to {path}", _NOT_CONNECTED), _closing_on_error(_unix()) as connected:
        connected.settimeout(_PATIENCE)
        connected.connect(path)
        return connected


def listen_unix(path: str) -> tuple[socket.socket, Callable[[], None]]:
    """A listening Unix socket at `path`, for this user alone, and what removes its file. Raises `EndpointError`.

    A file that a listener left behind which is no more is replaced, any other is not.
    """
    with explained(f"listening at {path}", _NOT_BOUND), _closing_on_error(_unix()) as listening:
        if _is_stale(path):
            os.unlink(path)
        before = os.umask(0o177)
        try:
            listening.bind(path)
        finally:
            os.umask(before)
        own = os.stat(path)
        listening.listen(_BACKLOG)

    def remove() -> None:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), own):
                os.unlink(path)

    return listening, remove


def _is_stale(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with _unix() as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _unix() -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise InvalidSetting("Python has no Unix sockets on this system; use tcp on the loopback address")
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


@contextlib.contextmanager
def _closing_on_error(opened: socket.socket) -> Iterator[socket.socket]:
    try:
        yield opened
    except BaseException:
        opened.close()
        raise


@contextlib.contextmanager
def explained(doing: str, advice: dict[int, str]) -> Iterator[None]:
    """Turn errors of the system into `EndpointError`s that say what was being done, and what to do now."""
    try:
        yield
    except InvalidSetting:
        raise
    except OSError as error:
        text = f"{doing}: {error.strerror or error}"
        if error.errno in advice:
            text += f"; {advice[error.errno]}"
        raise EndpointError(error.errno, text) from None


_NOT_CONNECTED = {
    errno.ECONNREFUSED: "start the listener there first",
    errno.ENOENT: "start the listener there first",
    errno.EACCES: "this user may not",
    socket.EAI_NONAME: "is the name written right?",
}
_NOT_BOUND = {
    errno.EADDRINUSE: "another program has it; take another port or path, or end that program",
    errno.EADDRNOTAVAIL: "that is no address of this machine",
    errno.EACCES: "this user may not; ports below 1024 are for root",
}
