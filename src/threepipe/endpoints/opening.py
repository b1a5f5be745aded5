"""Opening endpoints: for each kind of the table, how its session is put together."""

import socket
import threading
from collections.abc import Sequence

from threepipe.adapter import DEFAULT_CAPACITY, Adapter, adapters
from threepipe.backend import AdapterInfo
from threepipe.endpoints.caller import Caller
from threepipe.endpoints.datagram_port import DatagramPort
from threepipe.endpoints.listener import Listener
from threepipe.endpoints.process import standard_stream, start_program
from threepipe.endpoints.request import Asked, Complaints
from threepipe.endpoints.small import DiscardPort, EchoPort
from threepipe.endpoints.stream import Credentials, SocketStream, Stream, TlsStream
from threepipe.endpoints.stream_port import StreamPort
from threepipe.errors import InvalidSetting
from threepipe.memory import MemoryAdapter
from threepipe.net.connect import (
    Place,
    bind,
    connect,
    connect_unix,
    explained,
    keep_alive,
    listen_unix,
    parse_place,
)
from threepipe.platforms import enlarge_buffers, open_datagrams
from threepipe.session import Session
from threepipe.settings import WindowsSettings, parse_addresses, parse_routes

_USE_TLS = "use tls and tls-listen, or exec with ssh"
_HANDSHAKE = 10.0  # Seconds.

_memory_lock = threading.Lock()
_memory_waiting: dict[str, Adapter] = {}  # By name, the other ends of those that were opened once.


def open_tun(
    asked: Asked,
    *,
    address: Sequence[str] = (),
    route: Sequence[str] = (),
    mtu: int | None = None,
    metric: int | None = None,
    dns: Sequence[str] = (),
    search: Sequence[str] = (),
    netns: str | None = None,
    persistent: bool = False,
    owner: str | None = None,
    group: str | None = None,
    capacity: int = DEFAULT_CAPACITY,
    queues: int = 1,
    offload: bool = True,
) -> Session:
    """The persistent adapter of that name, which has to be as asked for, or a new one."""
    name = asked.place
    existing = [info for info in adapters(netns) if info.name == name and info.persistent]
    if existing:
        _check_existing(existing[0], address, route, mtu)
        _check_not_given(name, metric=metric, dns=dns, search=search)
        adapter = Adapter.open(name, netns=netns, offload=offload, queues=queues)
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
        )
    asked.complaints.tell(f"adapter {adapter.name} {'opened' if existing else 'made'}")
    return _session(adapter, capacity)


def _check_existing(info: AdapterInfo, addresses: Sequence[str], routes: Sequence[str], mtu: int | None) -> None:
    """Raise `InvalidSetting` where the adapter that exists is another one than was asked for."""
    lacks = [str(item) for item in parse_addresses(addresses) if item not in info.addresses]
    lacks += [str(item) for item in parse_routes(routes) if item not in info.routes]
    if mtu is not None and mtu != info.mtu:
        lacks.append(f"an MTU of {mtu}")
    if lacks:
        raise InvalidSetting(
            f"adapter {info.name} exists and has not {', '.join(lacks)}; leave that out, or delete it first"
            f" (threepipe adapter delete {info.name})"
        )


def _check_not_given(name: str, **settings: object) -> None:
    """Raise `InvalidSetting` for what only a new adapter is given, and nobody can look up."""
    if given := [setting for setting, value in settings.items() if value not in (None, ())]:
        raise InvalidSetting(
            f"adapter {name} exists, and {' and '.join(given)} can only be given to a new one; leave that out, or"
            f" delete it first (threepipe adapter delete {name})"
        )


def _session(adapter: Adapter, capacity: int) -> Session:
    try:
        session = adapter.start_session(capacity)
    except BaseException:
        adapter.close()
        raise
    session.also_close(adapter)
    return session


def open_udp(asked: Asked, *, bind: str | None = None) -> Session:
    place = parse_place(asked.place, listening=False)
    source = None if bind is None else parse_place(bind, listening=True)
    _warn_plaintext(place, asked.complaints)
    connected = connect(place, socket.SOCK_DGRAM, source)
    return Session(DatagramPort(open_datagrams(connected), asked.complaints, listening=False))


def open_udp_listen(asked: Asked) -> Session:
    place = parse_place(asked.place, listening=True)
    _warn_plaintext(place, asked.complaints)
    bound = bind(place, socket.SOCK_DGRAM)
    return Session(DatagramPort(open_datagrams(bound), asked.complaints, listening=True))


def open_tcp(asked: Asked) -> Session:
    place = parse_place(asked.place, listening=False)
    _warn_plaintext(place, asked.complaints)
    return _joined(asked, SocketStream(connect(place, socket.SOCK_STREAM)), str(place))


def open_tcp_listen(asked: Asked, *, reuse: bool = True) -> Session:
    place = parse_place(asked.place, listening=True)
    _warn_plaintext(place, asked.complaints)

    def wrap(accepted: socket.socket) -> SocketStream:
        keep_alive(accepted)
        return SocketStream(accepted)

    return _listening(asked, Listener(bind(place, socket.SOCK_STREAM), wrap, asked.complaints), reuse)


def open_tls(asked: Asked, *, cert: str = "", key: str = "", ca: str = "", name: str | None = None) -> Session:
    place = parse_place(asked.place, listening=False)
    context = _credentials(cert, key, ca).context(server=False)
    with explained(f"TLS with {place}", {}):
        connected = connect(place, socket.SOCK_STREAM)
        try:
            connected.settimeout(_HANDSHAKE)
            secured = context.wrap_socket(connected, server_hostname=name or place.host)
        except BaseException:
            connected.close()
            raise
    return _joined(asked, TlsStream(secured), str(place))


def open_tls_listen(asked: Asked, *, cert: str = "", key: str = "", ca: str = "", reuse: bool = True) -> Session:
    place = parse_place(asked.place, listening=True)
    context = _credentials(cert, key, ca).context(server=True)

    def wrap(accepted: socket.socket) -> TlsStream:
        keep_alive(accepted)
        accepted.getpeername()  # Raises where it is gone already, of which wrap_socket would leave an open socket.
        return TlsStream(context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False))

    return _listening(asked, Listener(bind(place, socket.SOCK_STREAM), wrap, asked.complaints), reuse)


def _warn_plaintext(place: Place, complaints: Complaints) -> None:
    """Warn once if packets leave this machine unencrypted."""
    if not _is_loopback(place):
        complaints.warn("plaintext", f"anybody on the way can read and forge these packets; {_USE_TLS}")


def _is_loopback(place: Place) -> bool:
    try:
        found = socket.getaddrinfo(place.host, None)
    except OSError:
        return False  # It will be said when it is used.
    return all(str(entry[4][0]).startswith("127.") or entry[4][0] == "::1" for entry in found)


def _credentials(cert: str, key: str, ca: str) -> Credentials:
    if not (cert and key and ca):
        raise InvalidSetting("TLS needs cert=FILE, key=FILE and ca=FILE: both ends show who they are")
    return Credentials(cert, key, ca)


def open_unix(asked: Asked) -> Session:
    return _joined(asked, _unix_stream(connect_unix(_path(asked))), asked.place)


def open_unix_listen(asked: Asked, *, reuse: bool = True) -> Session:
    listening, remove = listen_unix(_path(asked))
    return _listening(asked, Listener(listening, _unix_stream, asked.complaints, remove), reuse)


def _unix_stream(connected: socket.socket) -> SocketStream:
    enlarge_buffers(connected)  # They do not grow by themselves, as TCP's do.
    return SocketStream(connected)


def _path(asked: Asked) -> str:
    if not asked.place:
        raise InvalidSetting("a Unix socket needs a path, as in unix:/run/demo.sock")
    return asked.place


def open_stdio(asked: Asked) -> Session:
    return _joined(asked, standard_stream(), "standard input")


def open_exec(asked: Asked) -> Session:
    return _joined(asked, start_program(asked.place), "the command")


def open_echo(asked: Asked) -> Session:
    return Session(EchoPort())


def open_discard(asked: Asked) -> Session:
    return Session(DiscardPort())


def open_memory(asked: Asked) -> Session:
    with _memory_lock:
        adapter = _memory_waiting.pop(asked.place, None)
        if adapter is None:
            adapter, _memory_waiting[asked.place] = MemoryAdapter.pair()
    return _session(adapter, DEFAULT_CAPACITY)


def _joined(asked: Asked, stream: Stream, name: str) -> Session:
    return Session(StreamPort(asked.complaints, Caller(stream, name)))


def _listening(asked: Asked, listener: Listener, reuse: bool) -> Session:
    return Session(StreamPort(asked.complaints, None, listener, again=reuse))
