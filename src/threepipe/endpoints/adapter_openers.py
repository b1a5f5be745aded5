"""The openers of the kinds with an adapter, and the routes of all traffic to one."""

import threading
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Network, IPv6Network

from threepipe.adapter import DEFAULT_CAPACITY, Adapter, adapters, allows_offload
from threepipe.backend import AdapterInfo
from threepipe.endpoints.kinds import NEW_NAMESPACE
from threepipe.endpoints.parts import AdapterPart
from threepipe.endpoints.request import OpenRequest
from threepipe.errors import InvalidSetting, PermissionDenied
from threepipe.memory import MemoryAdapter
from threepipe.net.connect import close_on_error
from threepipe.platforms import enclose, free_table, open_inherited, routed
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
    if request.taken is not None:
        return _opened(request, request.taken.adapter(), capacity)
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
    session = _opened(request, adapter, capacity)
    if default_route is not None:
        with close_on_error(session):
            close_with(session, route_everything(adapter.index, versions_of(adapter), default_route))
    return session


def _opened(request: OpenRequest[str], adapter: Adapter, capacity: int) -> Session:
    session = _adapter_session(adapter, capacity)
    request.opened(AdapterPart(adapter))
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
    existing = _existing(name, netns)
    if existing is not None:
        _check_existing(existing, address, route, mtu)
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
    request.log.info(f"adapter {adapter.name} {'created' if existing is None else 'opened'}")
    return adapter


def _existing(name: str, netns: str | None) -> AdapterInfo | None:
    """Return the persistent adapter of that name, or None if there is none that this user may see."""
    try:
        return next((info for info in adapters(netns) if info.name == name and info.persistent), None)
    except PermissionDenied:
        return None  # Others may create one in that namespace for this user.


def open_memory(request: OpenRequest[str]) -> Session:
    with _memory_lock:
        adapter = _memory_waiting.pop(request.parameter, None)
        if adapter is None:
            adapter, _memory_waiting[request.parameter] = MemoryAdapter.pair()
    return _adapter_session(adapter, DEFAULT_CAPACITY)


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
