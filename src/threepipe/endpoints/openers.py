"""The openers of most kinds: each makes the session of one kind from its parts."""

import socket
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from threepipe.adapter import DEFAULT_CAPACITY, Adapter, adapters, allows_offload
from threepipe.backend import AdapterInfo
from threepipe.endpoints.connection import Connection
from threepipe.endpoints.credentials import Credentials, ListenerContext
from threepipe.endpoints.datagram_port import DatagramPort
from threepipe.endpoints.datagram_program import start_datagram_program
from threepipe.endpoints.dialer import Dialer, Retry
from threepipe.endpoints.echo_discard import DiscardPort, EchoPort
from threepipe.endpoints.listener import Listener
from threepipe.endpoints.process import standard_stream, start_program
from threepipe.endpoints.request import OpenRequest, RateLimitedLog
from threepipe.endpoints.stream import SocketStream, Stream, TlsStream
from threepipe.endpoints.stream_port import StreamPort
from threepipe.errors import InvalidSetting
from threepipe.memory import MemoryAdapter
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
from threepipe.platforms import (
    bind_to_interface,
    enclose,
    enlarge_buffers,
    free_table,
    mark_socket,
    open_datagrams,
    open_inherited,
    routed,
)
from threepipe.session import Session, close_with
from threepipe.settings import (
    AdapterSettings,
    Address,
    Network,
    Server,
    WindowsSettings,
    check_capacity,
    parse_addresses,
    parse_routes,
)

_HANDSHAKE_TIMEOUT = 10.0  # Seconds.

NEW_NAMESPACE = "new"
"""The value of the option netns for a network namespace that is made for the adapter."""

_EVERYTHING: dict[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}

_memory_lock = threading.Lock()
_memory_waiting: dict[str, Adapter] = {}  # The second adapters of pairs, by name, until they are opened.


def open_tun(
    request: OpenRequest[str],
    *,
    address: Sequence[Address] = (),
    route: Sequence[Network] = (),
    default_route: int | None = None,
    mtu: int | None = None,
    metric: int | None = None,
    dns: Sequence[Server] = (),
    search: Sequence[str] = (),
    netns: str | None = None,
    persistent: bool = False,
    owner: str | None = None,
    group: str | None = None,
    capacity: int = DEFAULT_CAPACITY,
    queues: int = 1,
    offload: bool = True,
) -> Session:
    """Open the persistent adapter of that name, which must have the settings given, or create one."""
    if netns == NEW_NAMESPACE:
        return _open_enclosed(request, address, route, mtu, metric, capacity, offload)
    adapter = open_adapter(
        request,
        address=address,
        route=route,
        mtu=mtu,
        metric=metric,
        dns=dns,
        search=search,
        netns=netns,
        persistent=persistent,
        owner=owner,
        group=group,
        queues=queues,
        offload=offload,
    )
    session = _adapter_session(adapter, capacity)
    if default_route is not None:
        with close_on_error(session):
            close_with(session, route_everything(adapter.index, versions_of(adapter), default_route))
    return session


def _open_enclosed(
    request: OpenRequest[str],
    address: Sequence[Address],
    route: Sequence[Network],
    mtu: int | None,
    metric: int | None,
    capacity: int,
    offload: bool,
) -> Session:
    """Create an adapter in a network namespace of its own, for which an ordinary user makes a user namespace."""
    settings = AdapterSettings(
        request.parameter,
        parse_addresses(address),
        parse_routes(route),
        mtu,
        metric,
        offload=offload and allows_offload(),
    )
    enclosure = enclose(settings.checked(), check_capacity(capacity))
    with close_on_error(enclosure):
        port = open_inherited(enclosure.descriptor)
        assert port is not None, "it is an adapter's descriptor"
        session = Session(port)
    close_with(session, enclosure)
    request.enclosed(enclosure)
    enter = f"nsenter --user --preserve-credentials --net --target {enclosure.process}"
    request.log.info(f"adapter {request.parameter} created in a new network namespace; to enter it: {enter}")
    return session


def open_adapter(
    request: OpenRequest[str],
    *,
    address: Sequence[Address] = (),
    route: Sequence[Network] = (),
    mtu: int | None = None,
    metric: int | None = None,
    dns: Sequence[Server] = (),
    search: Sequence[str] = (),
    netns: str | None = None,
    persistent: bool = False,
    owner: str | None = None,
    group: str | None = None,
    queues: int = 1,
    offload: bool = True,
    packet_information: bool = False,
) -> Adapter:
    """Open or create the adapter of a `tun` address. Raises `AdapterError` and `InvalidSetting`."""
    name = request.parameter
    existing = [info for info in adapters(netns) if info.name == name and info.persistent]
    if existing:
        _check_existing(existing[0], address, route, mtu)
        _check_not_given(name, metric=metric, dns=dns, search=search)
        adapter = Adapter.open(name, netns=netns, offload=offload, queues=queues, packet_information=packet_information)
    else:
        adapter = Adapter.create(
            name,
            addresses=address,
            routes=route,
            mtu=mtu,
            metric=metric,
            netns=netns,
            persistent=persistent,
            owner=owner,
            group=group,
            offload=offload,
            queues=queues,
            windows=WindowsSettings(dns=dns, search=search) if dns or search else None,
            packet_information=packet_information,
        )
    request.log.info(f"adapter {adapter.name} {'opened' if existing else 'created'}")
    return adapter


def versions_of(adapter: Adapter) -> set[int]:
    """Return the IP versions of the adapter's addresses, for `route_everything`. Raise `InvalidSetting` without any."""
    versions: set[int] = {address.version for address in adapter.addresses if not address.is_link_local}
    if not versions:
        raise InvalidSetting(f"default-route: {adapter.name} has no address to send from; add address=")
    return versions


def route_everything(index: int, versions: Collection[int], mark: int) -> ExitStack:
    """Route packets without that mark, of these IP versions, to the interface `index`. Closing it undoes that."""
    with ExitStack() as undo:
        everything = [_EVERYTHING[version] for version in sorted(versions)]
        undo.enter_context(routed(index, everything, free_table(), mark))
        return undo.pop_all()


def _check_existing(info: AdapterInfo, address: Sequence[Address], route: Sequence[Network], mtu: int | None) -> None:
    """Raise `InvalidSetting` if the existing adapter lacks a setting."""
    lacks = [str(item) for item in address if item not in info.addresses]
    lacks += [str(item) for item in route if item not in info.routes]
    if mtu is not None and mtu != info.mtu:
        lacks.append(f"an MTU of {mtu}")
    if lacks:
        raise InvalidSetting(f"adapter {info.name} exists without {', '.join(lacks)}; {_drop_or_delete(info.name)}")


def _check_not_given(name: str, **settings: object) -> None:
    """Raise `InvalidSetting` for settings that cannot be read back from an existing adapter."""
    if given := [setting for setting, value in settings.items() if value not in (None, ())]:
        raise InvalidSetting(
            f"adapter {name} exists, and {' and '.join(given)} can only be given to a new one; {_drop_or_delete(name)}"
        )


def _drop_or_delete(name: str) -> str:
    return f"drop the option or run: threepipe adapter delete {name}"


def _adapter_session(adapter: Adapter, capacity: int) -> Session:
    with close_on_error(adapter):
        session = adapter.start_session(capacity)
    close_with(session, adapter)
    return session


def _prepared(mark: int | None, interface: str | None) -> Prepare:
    """Return what `mark` and `interface` do to a socket."""

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
    unconnected, peer = open_towards(request.parameter, bind, _prepared(mark, interface))
    return Session(DatagramPort(open_datagrams(unconnected), request.log, peer=peer))


def open_udp_listen(
    request: OpenRequest[HostPort], *, mark: int | None = None, interface: str | None = None
) -> Session:
    _warn_if_plaintext(request)
    bound = bind(request.parameter, socket.SOCK_DGRAM, _prepared(mark, interface))
    return Session(DatagramPort(open_datagrams(bound), request.log, listening=True))


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

    listener = Listener(bind(request.parameter, socket.SOCK_STREAM, _prepared(mark, interface)), wrap, request.log)
    return _listening_session(request.log, listener, reuse)


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
            connected.settimeout(_HANDSHAKE_TIMEOUT)
            wrapped = context.wrap_socket(connected, server_hostname=name or remote.host, suppress_ragged_eofs=False)
            with close_on_error(wrapped) as secured:
                credentials.check(secured)
        return TlsStream(secured)

    return _dialled_session(request, dial, str(remote), retry, forever, interval)


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
        present = context.get()
        accepted.getpeername()  # Raises if the client is gone; wrap_socket would leave the socket open then.
        secured = present.wrap_socket(
            accepted, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        return TlsStream(secured, credentials.check)

    listener = Listener(bind(request.parameter, socket.SOCK_STREAM, _prepared(mark, interface)), wrap, request.log)
    return _listening_session(request.log, listener, reuse)


def _warn_if_plaintext(request: OpenRequest[HostPort]) -> None:
    """Warn once if packets leave this machine unencrypted."""
    if not _is_loopback(request.parameter):
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
    listening, remove = listen_unix(request.parameter)
    return _listening_session(request.log, Listener(listening, _unix_stream, request.log, remove), reuse)


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


def open_memory(request: OpenRequest[str]) -> Session:
    with _memory_lock:
        adapter = _memory_waiting.pop(request.parameter, None)
        if adapter is None:
            adapter, _memory_waiting[request.parameter] = MemoryAdapter.pair()
    return _adapter_session(adapter, DEFAULT_CAPACITY)


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

    if retry is None and not forever:
        return Session(StreamPort(request.log, connect(), lost=request.lost))
    dialer = Dialer(connect, Retry(retry, interval), request.log)
    return Session(StreamPort(request.log, dialer.first(), dialer, reuse=True))


def _listening_session(log: RateLimitedLog, listener: Listener, reuse: bool) -> Session:
    return Session(StreamPort(log, None, listener, reuse=reuse))
