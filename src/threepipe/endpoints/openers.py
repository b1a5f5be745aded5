"""The openers of the kinds with sockets, streams and programs: each makes the session of one kind from its parts."""

import errno
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from threepipe.endpoints.connection import Connection
from threepipe.endpoints.credentials import Credentials, ListenerContext
from threepipe.endpoints.datagram_port import DatagramPort
from threepipe.endpoints.datagram_program import start_datagram_program
from threepipe.endpoints.dialer import Dialer, Retry
from threepipe.endpoints.echo_discard import DiscardPort, EchoPort
from threepipe.endpoints.listener import Listener, Wrap
from threepipe.endpoints.process import standard_stream, start_program
from threepipe.endpoints.request import OpenRequest
from threepipe.endpoints.stream import SocketStream, Stream
from threepipe.endpoints.stream_port import StreamPort
from threepipe.endpoints.tls_stream import TlsStream
from threepipe.net.connect import (
    HostPort,
    Prepare,
    bind,
    close_on_error,
    connect,
    connect_unix,
    endpoint_errors,
    keep_alive,
    listen_unix,
    open_towards,
)
from threepipe.net.watch import is_readable
from threepipe.platforms import bind_to_interface, enlarge_buffers, mark_socket, open_datagrams
from threepipe.session import Session

_HANDSHAKE_TIMEOUT = 10.0  # Seconds.

_Listening: TypeAlias = tuple[socket.socket, Callable[[], None]]
"""A listening socket, and a function that removes its file if it has one."""


def _prepared(mark: int | None, interface: str | None) -> Prepare:
    """Return a function that marks a socket and binds it to an interface, as far as they are given."""

    def prepare(made: socket.socket) -> None:
        if mark is not None:
            mark_socket(made, mark)
        if interface is not None:
            bind_to_interface(made, interface)

    return prepare


def open_udp(
    request: OpenRequest[HostPort],
    *,
    bind: HostPort | None = None,
    mark: int | None = None,
    interface: str | None = None,
) -> Session:
    _warn_if_plaintext(request)
    if (taken := request.taken) is None:
        unconnected, peer = open_towards(request.parameter, bind, _prepared(mark, interface))
    else:
        unconnected, peer = taken.socket(), tuple(taken.state["peer"])
    return _opened(request, DatagramPort(open_datagrams(unconnected), request.log, peer=peer))


def open_udp_listen(
    request: OpenRequest[HostPort], *, mark: int | None = None, interface: str | None = None
) -> Session:
    _warn_if_plaintext(request)
    if (taken := request.taken) is None:
        bound = bind(request.parameter, socket.SOCK_DGRAM, _prepared(mark, interface))
    else:
        bound = taken.socket()
    port = DatagramPort(open_datagrams(bound), request.log, listening=True)
    if taken is not None:
        port.go_on(taken.state)
    return _opened(request, port)


def _opened(request: OpenRequest[Any], port: DatagramPort | StreamPort) -> Session:
    request.opened(port)
    return Session(port)


def open_tcp(
    request: OpenRequest[HostPort],
    *,
    mark: int | None = None,
    interface: str | None = None,
    retry: int | None = None,
    forever: bool = False,
    interval: float = 1.0,
) -> Session:
    _warn_if_plaintext(request)
    remote = request.parameter

    def dial() -> Stream:
        return SocketStream(connect(remote, _prepared(mark, interface)))

    return _dialled_session(request, dial, str(remote), retry, forever, interval)


def open_tcp_listen(
    request: OpenRequest[HostPort], *, reuse: bool = True, mark: int | None = None, interface: str | None = None
) -> Session:
    _warn_if_plaintext(request)

    def wrap(accepted: socket.socket) -> SocketStream:
        keep_alive(accepted)
        return SocketStream(accepted)

    return _listening_session(request, partial(_listen, request.parameter, mark, interface), wrap, reuse)


def open_tls(
    request: OpenRequest[HostPort],
    *,
    cert: str,
    key: str,
    ca: str,
    crl: str | None = None,
    fingerprint: Sequence[str] = (),
    name: str | None = None,
    mark: int | None = None,
    interface: str | None = None,
    retry: int | None = None,
    forever: bool = False,
    interval: float = 1.0,
) -> Session:
    remote = request.parameter
    credentials = Credentials(cert, key, ca, crl, fingerprints=fingerprint)  # OpenSSL checks the name.
    credentials.context(server=False)  # Files that cannot be used now are not tried again.

    def dial() -> Stream:
        context = credentials.context(server=False)  # Read anew, as certificates are renewed.
        with (
            endpoint_errors(f"TLS with {remote}", {}),
            close_on_error(connect(remote, _prepared(mark, interface))) as connected,
        ):
            stream = TlsStream(connected, context, credentials.check, name or remote.host)
            _finish_handshake(stream)
        return stream

    return _dialled_session(request, dial, str(remote), retry, forever, interval)


def _finish_handshake(stream: TlsStream) -> None:
    end = time.monotonic() + _HANDSHAKE_TIMEOUT
    while not stream.handshake():
        if not is_readable(stream.reader, max(0, end - time.monotonic())):
            raise TimeoutError(errno.ETIMEDOUT, "the handshake took too long")


def open_tls_listen(
    request: OpenRequest[HostPort],
    *,
    cert: str,
    key: str,
    ca: str,
    crl: str | None = None,
    fingerprint: Sequence[str] = (),
    name: Sequence[str] = (),
    reuse: bool = True,
    mark: int | None = None,
    interface: str | None = None,
) -> Session:
    credentials = Credentials(cert, key, ca, crl, name, fingerprint)
    context = ListenerContext(credentials, request.log)

    def wrap(accepted: socket.socket) -> TlsStream:
        keep_alive(accepted)
        return TlsStream(accepted, context.get(), credentials.check)

    return _listening_session(request, partial(_listen, request.parameter, mark, interface), wrap, reuse)


def _listen(local: HostPort, mark: int | None, interface: str | None) -> _Listening:
    return bind(local, socket.SOCK_STREAM, _prepared(mark, interface)), lambda: None


def _warn_if_plaintext(request: OpenRequest[HostPort]) -> None:
    """Warn once if packets leave this machine unencrypted."""
    if request.taken is None and not _is_loopback(request.parameter):
        text = "packets travel unencrypted and unauthenticated; use tls and tls-listen, or exec with ssh"
        request.log.warn("plaintext", text)


def _is_loopback(address: HostPort) -> bool:
    try:
        found = socket.getaddrinfo(address.host, None)
    except OSError:
        return False  # Connecting or binding reports this error.
    return all(str(entry[4][0]).startswith("127.") or entry[4][0] == "::1" for entry in found)


def open_unix(
    request: OpenRequest[str],
    *,
    retry: int | None = None,
    forever: bool = False,
    interval: float = 1.0,
) -> Session:
    path = request.parameter
    return _dialled_session(request, lambda: _unix_stream(connect_unix(path)), path, retry, forever, interval)


def open_unix_listen(request: OpenRequest[str], *, reuse: bool = True) -> Session:
    return _listening_session(request, lambda: listen_unix(request.parameter), _unix_stream, reuse)


def _unix_stream(connected: socket.socket) -> SocketStream:
    enlarge_buffers(connected)  # Unlike TCP's they do not grow by themselves.
    return SocketStream(connected)


def open_stdio(request: OpenRequest[str]) -> Session:
    return Session(StreamPort(request.log, Connection(standard_stream(), "standard input")))


def open_exec(
    request: OpenRequest[list[str]],
    *,
    datagrams: bool = False,
    retry: int | None = None,
    forever: bool = False,
    interval: float = 1.0,
) -> Session:
    if datagrams:
        return Session(start_datagram_program(request.parameter, request.log))
    request = request._replace(lost=lambda _: None)  # The status of the program says whether its end is a failure.
    return _dialled_session(request, lambda: start_program(request.parameter), "the command", retry, forever, interval)


def open_echo(request: OpenRequest[str]) -> Session:
    return Session(EchoPort())


def open_discard(request: OpenRequest[str]) -> Session:
    return Session(DiscardPort())


def _dialled_session(
    request: OpenRequest[Any],
    dial: Callable[[], Stream],
    name: str,
    retry: int | None,
    forever: bool,
    interval: float,
) -> Session:
    """Return a session on a connection that `dial` makes to `name`, and makes again if the options say so."""

    def connect() -> Connection:
        return Connection(dial(), name)

    taken = request.taken
    if retry is None and not forever:
        only = connect() if taken is None else taken.connections()[0][0]
        return _opened(request, StreamPort(request.log, only, lost=request.lost, given=taken is not None))
    dialer = Dialer(connect, Retry(retry, interval), request.log)
    first: Connection | None = None
    if taken is None:
        first = dialer.first()
    elif taken.state["connected"]:
        first = taken.connections()[0][0]
    else:
        dialer.again()
    return _opened(request, StreamPort(request.log, first, dialer, reuse=True, given=taken is not None))


def _listening_session(
    request: OpenRequest[Any],
    listen: Callable[[], _Listening],
    wrap: Wrap,
    reuse: bool,
) -> Session:
    """Return a session on a listener at the socket that `listen` makes."""
    if (taken := request.taken) is None:
        listening, remove = listen()
        listener = Listener(listening, wrap, request.log, remove)
        return _opened(request, StreamPort(request.log, None, listener, reuse=reuse))
    listening, pending = taken.socket(), taken.connections()
    client = pending.pop(0)[0] if taken.state["connected"] else None
    listener = Listener(listening, wrap, request.log, pending=pending)
    return _opened(request, StreamPort(request.log, client, listener, reuse=reuse, given=True))
