"""Agents on a bus in memory, with devices that have neither adapters nor routes of the system."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_network
from pathlib import Path

import pytest

from tests.support.mesh import TableOfRoutes
from tests.support.mesh_bus import AUTHORITY, NETWORKS, YEAR, FakeBus, FakeProber, Hub
from threepipe.errors import AdapterError, SessionClosed
from threepipe.mesh import Agent, Certificate, Links, Store
from threepipe.mesh.agent import now
from threepipe.mesh.records import public_part
from threepipe.settings import Network
from threepipe.wireguard import Device, NextHopRouting, key_to_text, link_local, parse_networks

__all__ = ["Mesh", "Node", "SettableRoutes", "drain", "hello", "run", "until"]

_OFTEN = {"_TICK": 0.01, "_LOOK": 0.05, "_FIRST_LOOKS": ()}


@dataclass
class Node:
    """An agent and its parts."""

    agent: Agent
    links: Links
    store: Store
    prober: FakeProber
    own: list[tuple[str, int]] = field(default_factory=list)
    over: bool = False
    ticks: int = 0
    """The number of times that the agent has asked whether it is over, which it does before it lets records expire."""
    task: "asyncio.Future[None] | None" = None

    def members(self) -> set[str]:
        return set(self.agent.membership.members)

    def is_over(self) -> bool:
        self.ticks += 1
        return self.over


class SettableRoutes(TableOfRoutes):
    """Routes that a program sets, as in `KernelRoutes`."""

    def __init__(self) -> None:
        super().__init__()
        self.present: dict[Network, IPv6Address] = {}
        self.refuses = False

    def add(self, destination: Network, next_hop: IPv6Address) -> None:
        if self.refuses:
            raise AdapterError(1, "refused")
        self.present[destination] = next_hop

    def remove(self, destination: Network, next_hop: IPv6Address) -> None:
        if self.present.get(destination) == next_hop:
            del self.present[destination]

    def next_hop(self, destination: bytes, source: bytes) -> bytes | None:
        found = self.present.get(ip_network(destination))
        return found.packed if found else None


class Mesh:
    """Nodes on one hub."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.hub = Hub()
        self._folder, self._stack = folder, stack

    def make(self, name: str, prefixes: Sequence[str] = (), expiry: float = 60) -> Node:
        """Make a node in its folder, which may be there already."""
        store = Store(self._folder / name)
        self._stack.callback(store.close)
        keys = store.keys()
        if not (store.folder / "certificate").exists():
            granted: tuple[Network, ...] = parse_networks(prefixes)
            made = Certificate.issue(AUTHORITY, keys.request(name), granted, now(), now() + YEAR)
            store.put_certificate(f"{made.text}\n{key_to_text(public_part(AUTHORITY))}\n")
        routes = SettableRoutes()
        device = Device(private_key=keys.wireguard, routing=NextHopRouting(NETWORKS, routes))
        thread = threading.Thread(target=drain, args=(device,))
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(device.close)
        links, prober = Links(device, routes, NETWORKS, 0), FakeProber()
        own = [("127.0.0.1", device.status().listen_port)]
        bus = FakeBus(self.hub)
        agent = Agent(store, NETWORKS, bus, links, expiry=expiry, endpoints=lambda: ((), own), probe=prober.probe)
        return Node(agent, links, store, prober, own)

    async def start(self, *nodes: Node) -> None:
        for node in nodes:
            ready = asyncio.Event()
            node.task = asyncio.ensure_future(node.agent.run(node.is_over, ready.set))
            self._stack.push_async_callback(self.stop, node)
            waiting = asyncio.ensure_future(ready.wait())
            await asyncio.wait((node.task, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not ready.is_set():
                waiting.cancel()
                await node.task

    async def stop(self, node: Node) -> None:
        node.over = True
        assert node.task is not None
        await asyncio.gather(node.task, return_exceptions=True)
        node.store.close()


def drain(device: Device) -> None:
    """Receive until the device is closed: it opens no datagram unless somebody receives."""
    with suppress(SessionClosed):
        while True:
            device.session.receive()


@asynccontextmanager
async def _meshed(folder: Path) -> AsyncIterator[Mesh]:
    """Return a mesh whose agents look often."""
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in _OFTEN.items():
            patch.setattr(f"threepipe.mesh.agent.{name}", seconds)
        async with AsyncExitStack() as stack:
            yield Mesh(folder, stack)


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` is true. Raise `TimeoutError` if it is not in time."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def run(folder: Path, work: Callable[[Mesh], Awaitable[None]]) -> None:
    """Do the work in a mesh whose nodes keep their state in the folder."""

    async def within() -> None:
        async with _meshed(folder) as mesh:
            await work(mesh)

    asyncio.run(within())


def hello(one: Node, other: Node) -> bytes:
    """Return a packet from one node to the link-local address of another."""
    source, destination = (link_local(node.agent.certificate.key).packed for node in (one, other))
    return b"\x60\0\0\0\0\0\x3b\x40" + source + destination
