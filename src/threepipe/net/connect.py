"""Sockets that connect and listen, at HOST:PORT and at the paths of Unix sockets. Knows no packets."""

import contextlib
import errno
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from threepipe.errors import EndpointError, InvalidSetting

__all__ = [
    "HostPort",
    "Prepare",
    "bind",
    "check_host_name",
    "close_on_error",
    "connect",
    "connect_unix",
    "endpoint_errors",
    "keep_alive",
    "listen_unix",
    "open_towards",
    "parse_host_port",
    "reach_unix",
    "remover",
    "turn_at",
]

LOOPBACK = "127.0.0.1"
_CONNECT_TIMEOUT = 10.0  # Seconds.
_BACKLOG = 128
_LOCK_TIMEOUT = 5.0  # Seconds.
_LOCK_INTERVAL = 0.01


class _HasClose(Protocol):
    def close(self) -> None: ...


_Closable = TypeVar("_Closable", bound=_HasClose)
_Result = TypeVar("_Result")


class HostPort(NamedTuple):
    """A host, by name or address, and a port of it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_host_port(text: str, *, listening: bool) -> HostPort:
    """Parse `HOST:PORT` or `[IPv6]:PORT`; if `listening`, also `PORT` alone, which is at the loopback address.

    Raises `InvalidSetting`.
    """
    host, colon, port = text.rpartition(":")
    if not colon and listening:
        host = LOOPBACK
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidSetting(f"{text!r}: write an IPv6 address in brackets, as in [::1]:4242")
    if (
        not host
        or not port.isascii()
        or not port.isdigit()
        or len(port) > 5
        or int(port) > 0xFFFF
        or not (int(port) or listening)
    ):
        example = "4242, 127.0.0.1:4242 or [::]:4242" if listening else "vpn.example.org:4242 or [::1]:4242"
        form = "[HOST:]PORT" if listening else "HOST:PORT"
        raise InvalidSetting(f"{text!r} is not {form}; write it like {example}")
    return HostPort(check_host_name(host), int(port))


def check_host_name(name: str) -> str:
    """Return `name`. Raise `InvalidSetting` if it cannot be a host name."""
    try:
        name.encode("idna")  # As getaddrinfo and ssl do.
    except UnicodeError:
        text = f"{name!r} cannot be a host name; its parts between dots have 1 to 63 characters"
        raise InvalidSetting(text) from None
    return name


Prepare: TypeAlias = Callable[[socket.socket], None]
"""A function that prepares a socket before it is bound or connected, such as by a mark; may raise `OSError`."""


def connect(remote: HostPort, prepare: Prepare | None = None) -> socket.socket:
    """Return a stream socket connected to the first address of `remote` that answers. Raises `EndpointError`."""

    def attempt(family: int, address: Any) -> socket.socket:
        with _socket(family, socket.SOCK_STREAM, prepare) as connected:
            connected.settimeout(_CONNECT_TIMEOUT)
            connected.connect(address)
            keep_alive(connected)
            return connected

    with endpoint_errors(f"connecting to {remote}", _NOT_CONNECTED):
        return _first(socket.getaddrinfo(*remote, type=socket.SOCK_STREAM), attempt)


def open_towards(
    remote: HostPort, local: HostPort | None = None, prepare: Prepare | None = None
) -> tuple[socket.socket, Any]:
    """Return a datagram socket bound to `local`, and the first address of `remote` that there is a way to from there.

    Without `local`, the system chooses the port now, and an address for each datagram. The socket is not connected,
    because a connected one is bound to the address that it had first. Raises `EndpointError`.
    """

    def attempt(family: int, address: Any) -> tuple[socket.socket, Any]:
        here = _any_place(family) if local is None else own[family]
        with _socket(family, socket.SOCK_DGRAM, prepare) as probe:
            probe.bind((here[0], 0, *here[2:]))
            probe.connect(address)  # Sends nothing; raises if there is no way.
            probe.close()
        with _socket(family, socket.SOCK_DGRAM, prepare) as datagrams:
            datagrams.bind(here)
            return datagrams, address

    with endpoint_errors(f"sending to {remote}", _NO_WAY):
        found = socket.getaddrinfo(*remote, type=socket.SOCK_DGRAM)
        if local is None:
            return _first(found, attempt)
    with endpoint_errors(f"sending to {remote} from {local}", _NO_WAY | _NOT_BOUND):
        own: dict[int, Any] = {
            entry[0]: entry[4] for entry in reversed(socket.getaddrinfo(*local, type=socket.SOCK_DGRAM))
        }
        if not (reachable := [entry for entry in found if entry[0] in own]):
            raise EndpointError(
                errno.EAFNOSUPPORT,
                f"{remote} has no address of the same IP version as {local}; bind an address of the other version",
            )
        return _first(reachable, attempt)


def _any_place(family: int) -> Any:
    return ("::", 0, 0, 0) if family == socket.AF_INET6 else ("0.0.0.0", 0)


def _first(found: Iterable[Any], attempt: Callable[[int, Any], _Result]) -> _Result:
    """Return the result for the first address for which there is one. Raises the first `OSError`.

    getaddrinfo sorts addresses that cannot be reached last, so the first error says most (RFC 6724, section 6).
    """
    first: OSError | None = None
    for family, _, _, _, address in found:
        try:
            return attempt(family, address)
        except OSError as error:
            first = first or error
    assert first is not None  # getaddrinfo returns at least one address, or raises.
    raise first


@contextlib.contextmanager
def _socket(family: int, kind: socket.SocketKind, prepare: Prepare | None) -> Iterator[socket.socket]:
    """Yield a prepared socket, which is closed if the block raises."""
    with close_on_error(socket.socket(family, kind)) as made:
        if prepare is not None:
            prepare(made)
        yield made


def bind(local: HostPort, kind: socket.SocketKind, prepare: Prepare | None = None) -> socket.socket:
    """Return a socket bound to `local`; a stream socket listens. Raises `EndpointError`."""
    with endpoint_errors(f"listening at {local}", _NOT_BOUND):
        family, _, _, _, address = socket.getaddrinfo(*local, type=kind, flags=socket.AI_PASSIVE)[0]
        with _socket(family, kind, None) as bound:
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            if prepare is not None:
                prepare(bound)
            if kind == socket.SOCK_STREAM and not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
                # Where that exists, on Windows, this one lets two programs listen at one port.
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            if kind == socket.SOCK_STREAM:
                bound.listen(_BACKLOG)
            return bound


def keep_alive(connected: socket.socket) -> None:
    """Send small segments at once, and detect within half a minute that the other end is gone."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Seconds until the first probe, seconds between probes, number of probes; milliseconds data may be unacknowledged.
    for option, value in (("KEEPIDLE", 10), ("KEEPINTVL", 5), ("KEEPCNT", 3), ("USER_TIMEOUT", 25_000)):
        if (number := getattr(socket, f"TCP_{option}", None)) is not None:
            try:
                connected.setsockopt(socket.IPPROTO_TCP, number, value)
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:
                    raise
                # Python knows the option and this system does not; the system's default applies.


def connect_unix(path: str) -> socket.socket:
    """Return a socket connected to the Unix socket `path`. Raises `EndpointError`."""
    with endpoint_errors(f"connecting to {path}", _NOT_CONNECTED):
        return reach_unix(path)


def reach_unix(path: str) -> socket.socket:
    """Return a socket connected to the Unix socket `path`, with a time limit. Raises `OSError`, unlike `connect_unix`.

    Waits for a listener whose queue is full, up to the limit.
    """
    with close_on_error(_unix()) as connected:
        # Not by settimeout, with which a full queue is an error at once (unix(7)).
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(_CONNECT_TIMEOUT), 0))
        connected.connect(path)
        connected.settimeout(_CONNECT_TIMEOUT)
        return connected


def listen_unix(path: str, mode: int = 0o600) -> tuple[socket.socket, Callable[[], None]]:
    """Return a Unix socket that listens at `path`, and a function that removes its file, which has the given mode.

    A stale socket file, at which nothing listens, is replaced; any other file is not. Of several callers at once, one
    gets the path. Raises `EndpointError`.
    """
    with endpoint_errors(f"listening at {path}", _NOT_BOUND), close_on_error(_unix()) as listening, turn_at(path):
        if _is_stale(path):
            os.unlink(path)
        before = os.umask(0o777 & ~mode)
        try:
            listening.bind(path)
        finally:
            os.umask(before)
        listening.listen(_BACKLOG)
        return listening, remover(path)


def remover(path: str) -> Callable[[], None]:
    """Return a function that removes the file of a listening socket, unless another one has replaced it.

    Call it before the socket is closed: then the file could be replaced, by one with the same number. It does nothing
    in a forked child, as the parent goes on listening. Raises `OSError` if there is no file now.
    """
    own, maker = os.stat(path), os.getpid()

    def remove() -> None:
        if os.getpid() == maker:
            with contextlib.suppress(OSError), turn_at(path):
                if os.path.samestat(os.stat(path), own):
                    os.unlink(path)

    return remove


@contextlib.contextmanager
def turn_at(path: str) -> Iterator[None]:
    """Hold the lock of a Unix socket while the block runs, so that its file is judged and replaced in turn.

    Without it, the file of a socket that does not listen yet seems stale, and a file may be replaced just before it is
    removed. The lock is a file beside the socket's that no other user can open, and that is removed at the end. It is
    released if this process is killed. Raises `OSError`, also if another program keeps it.
    """
    lock = f"{path}.lock"
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while (descriptor := _take(lock)) is None:
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, f"another program keeps {lock} locked; end it")
        time.sleep(_LOCK_INTERVAL)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock)
        os.close(descriptor)


def _take(lock: str) -> int | None:
    """Return the descriptor of the file, which is locked now; None if another program has it. Raises `OSError`."""
    try:
        # A link could have been made by another user, to have this one make a file elsewhere.
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError as error:
        if os.path.lexists(lock):
            raise OSError(error.errno, f"{lock} cannot be locked ({error.strerror}); remove it") from None
        raise
    try:
        found = os.fstat(descriptor)
        if found.st_size or not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EEXIST, f"{lock} is not a lock of threepipe; move it, or choose another path")
        # Its last holder may have removed it meanwhile.
        if _try_lock(descriptor) and os.path.samestat(found, os.stat(lock)):
            return descriptor
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _try_lock(descriptor: int) -> bool:
    """Lock an open file, unless another opening of it is locked: then return False. See flock(2)."""
    if sys.platform != "win32":  # Python has no Unix sockets there.
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _is_stale(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with _unix() as probe:
        probe.setblocking(False)  # If its queue is full, there is a listener; others wait for their turn.
        try:
            probe.connect(path)
        except OSError as error:
            return error.errno == errno.ECONNREFUSED
    return False


def _unix() -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise InvalidSetting("Python has no Unix sockets on this system; use tcp at the loopback address")
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


@contextlib.contextmanager
def close_on_error(opened: _Closable) -> Iterator[_Closable]:
    """Close `opened` if the block raises."""
    try:
        yield opened
    except BaseException:
        opened.close()
        raise


@contextlib.contextmanager
def endpoint_errors(action: str, advice: dict[int, str]) -> Iterator[None]:
    """Raise an `OSError` of the block as an `EndpointError` that names the action and gives the advice by errno."""
    try:
        yield
    except OSError as error:
        text = f"{action}: {error.strerror or error}"
        if error.errno in advice:
            text += f"; {advice[error.errno]}"
        raise EndpointError(error.errno, text) from None


_NOT_CONNECTED = {
    errno.ECONNREFUSED: "start the listener there first",
    errno.ENOENT: "start the listener there first",
    errno.EACCES: "run this as a user with permission",
    errno.ENETUNREACH: "check the network and the routes of this machine",
    errno.EHOSTUNREACH: "check the network and the routes of this machine",
    errno.ETIMEDOUT: "check the address, and the firewalls on the way",
    socket.EAI_NONAME: "check the spelling of the host name",
}
_NO_WAY = _NOT_CONNECTED | {
    errno.EACCES: "give the address of one host, not a broadcast address, and check that no route prohibits it",
}
_NOT_BOUND = {
    errno.EADDRINUSE: "another program uses it; choose another port or path, or end that program",
    errno.EADDRNOTAVAIL: "choose an address of this machine",
    errno.EACCES: "run this as a user with permission; ports below 1024 need root",
}
