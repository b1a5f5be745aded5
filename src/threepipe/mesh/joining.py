"""Joining a network: an adapter, a device that routes by next hops, and the agent run until the node leaves."""

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from threepipe import platforms
from threepipe.adapter import Adapter
from threepipe.core import fast
from threepipe.errors import InvalidSetting, NameTaken
from threepipe.mesh.agent import Agent, Endpoints
from threepipe.mesh.bus import Bus
from threepipe.mesh.control import serving
from threepipe.mesh.links import Links
from threepipe.mesh.probes import Probes
from threepipe.mesh.records import check_endpoint, node_address
from threepipe.mesh.store import Store
from threepipe.net.connect import HostPort
from threepipe.net.service import announced
from threepipe.settings import Network
from threepipe.wireguard.device import Device
from threepipe.wireguard.kernel_routes import KernelRoutes
from threepipe.wireguard.keys import public_key
from threepipe.wireguard.next_hops import NextHopRouting
from threepipe.wireguard.quick.ending import Ending
from threepipe.wireguard.quick.metrics import serve
from threepipe.wireguard.quick.names import resolve
from threepipe.wireguard.quick.traffic import traffic
from threepipe.wireguard.uapi_server import UapiServer
from threepipe.wireguard.uapi_socket import listen

__all__ = ["Joining", "join", "state_folder"]

log = logging.getLogger("threepipe.mesh")

_MIN_EXPIRY, _MAX_EXPIRY = 2, 86_400
_LEAK_METRIC = 8192


def state_folder(interface: str) -> Path:
    """Return the folder in which a node keeps its state by default."""
    return Path("/var/lib/threepipe/mesh", interface)


@dataclass(frozen=True)
class Joining:
    """The settings of a node."""

    store: Store
    bus: Bus
    networks: Sequence[Network]
    """The networks of the mesh. The node's address is in the first of IPv6."""
    name: str | None = None
    """The node's name; it has to be the one in its certificate."""
    interface: str = "mesh0"
    port: int = 51820
    mtu: int = 1420
    keepalive: int = 25
    expiry: float = 300
    endpoints: Sequence[tuple[str, int]] = ()
    """The endpoints of this node besides the addresses of its interfaces. The agent looks names up again and again."""
    metrics: HostPort | None = None
    """The address at which Prometheus gets the metrics of the device; None for no metrics."""

    def check(self) -> None:
        """Raise `InvalidSetting` if these settings cannot work. Raises as `Store.certificate` does."""
        certificate, _ = self.store.certificate()
        if self.name not in (None, certificate.name):
            raise InvalidSetting(f"the certificate is of {certificate.name}, not of {self.name}")
        if certificate.key != public_key(self.store.keys().wireguard):
            raise InvalidSetting(f"the certificate is not for the keys in {self.store.folder}; have a new one signed")
        if not _MIN_EXPIRY <= self.expiry <= _MAX_EXPIRY:
            raise InvalidSetting(f"expiry {self.expiry}: give {_MIN_EXPIRY} to {_MAX_EXPIRY} seconds")
        node_address(self.networks, certificate.key)


def join(joining: Joining, ready: Callable[[Agent], None]) -> None:
    """Join, call `ready`, and stay until `threepipe mesh leave`, a signal, or the removal of the adapter.

    Raises `Ended` if a signal arrives before `ready` was called, `InvalidSetting`, `EndpointError` and `AdapterError`.
    """
    joining.check()
    if (name := joining.interface) in (present for _, present in socket.if_nameindex()):
        advice = "end its agent by threepipe mesh leave, or choose another name by --interface"
        raise NameTaken(errno.EEXIST, f"there is an interface {name} already; {advice}")
    with Ending() as ending, ExitStack() as stack:
        _run(joining, ending, stack, ready)


def _run(joining: Joining, ending: Ending, stack: ExitStack, ready: Callable[[Agent], None]) -> None:
    enter, networks, store = stack.enter_context, joining.networks, joining.store
    keys = store.keys()
    address = node_address(networks, public_key(keys.wireguard))
    waiting = enter(ExitStack())
    stack.callback(store.close)
    adapter = enter(
        Adapter.create(
            joining.interface,
            addresses=[f"{address}/128"],
            routes=networks,  # Packets to nodes that are gone shall not leave by the default route, unencrypted.
            metric=_LEAK_METRIC,
            mtu=joining.mtu,
            offload=fast.NATIVE,
        )
    )
    listening = listen(adapter.name)
    inside = enter(adapter.start_session())
    routes = KernelRoutes(adapter)
    device = enter(
        Device(
            private_key=keys.wireguard,
            listen_port=joining.port,
            mtu=joining.mtu,
            routing=NextHopRouting(networks, routes),
        )
    )
    over = threading.Event()
    failures = enter(traffic(inside, device.session, over))
    enter(UapiServer(listening, device, over.set))
    enter(serve(device, adapter.name, joining.metrics))
    links = Links(device, routes, networks, joining.keepalive)
    probes, told = Probes(adapter.name, links.endpoint_of), set[str]()
    agent = Agent(
        store,
        networks,
        joining.bus,
        links,
        expiry=joining.expiry,
        endpoints=lambda: _endpoints(joining.endpoints, device.status().listen_port, told),
        probe=probes.probe,
    )
    ending.check()
    enter(announced(f"{agent.name} is in the mesh by {adapter.name}"))

    async def stay() -> None:
        async with probes, serving(agent, adapter.name, over.set, waiting):
            await agent.run(lambda: over.is_set() or ending.number is not None, lambda: ready(agent))

    asyncio.run(stay())
    if failures:
        raise failures[0]


def _endpoints(given: Iterable[tuple[str, int]], port: int, told: set[str]) -> Endpoints:
    """Return the given endpoints, and those of this machine's addresses. Log errors that are not in `told` yet."""
    found = []
    for each in given:
        try:
            found.append(check_endpoint(*resolve(each)))
        except (ValueError, OSError) as error:
            if str(error) not in told:
                told.add(str(error))
                log.warning("%s", error)
    return found, [(text, port) for text in platforms.host_addresses()]
