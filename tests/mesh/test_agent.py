"""Agents on a bus in memory, with devices that have neither adapters nor routes of the system."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh import TableOfRoutes
from tests.support.mesh_bus import AUTHORITY, NETWORKS, YEAR, FakeBus, FakeProber, Hub, Signer
from threepipe.errors import EndpointError, SessionClosed
from threepipe.mesh import Agent, Certificate, Links, Record, Store
from threepipe.mesh.agent import now
from threepipe.mesh.records import public_part
from threepipe.settings import Network
from threepipe.wireguard import Device, NextHopRouting, key_to_text, link_local, parse_networks


@dataclass
class Node:
    """An agent and its parts."""

    agent: Agent
    links: Links
    store: Store
    prober: FakeProber
    own: list[tuple[str, int]] = field(default_factory=list)
    over: bool = False
    task: "asyncio.Future[None] | None" = None

    def members(self) -> set[str]:
        return set(self.agent.membership.members)


def drain(device: Device) -> None:
    """Receive, without which a device opens nothing."""
    with suppress(SessionClosed):
        while True:
            device.session.receive()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have agents look often."""
    for name, seconds in {"_TICK": 0.01, "_LOOK": 0.05, "_FIRST_LOOKS": ()}.items():
        monkeypatch.setattr(f"threepipe.mesh.agent.{name}", seconds)


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
            work = node.agent.run(lambda node=node: node.over, ready.set)  # type: ignore[misc]
            node.task = asyncio.ensure_future(work)
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


class SettableRoutes(TableOfRoutes):
    def __init__(self) -> None:
        super().__init__()
        self.present: dict[Network, Any] = {}

    def add(self, destination: Network, next_hop: Any) -> None:
        self.present[destination] = next_hop

    def remove(self, destination: Network, next_hop: Any) -> None:
        self.present.pop(destination, None)

    def next_hop(self, destination: bytes, source: bytes) -> bytes | None:
        found = {network.network_address.packed: hop for network, hop in self.present.items()}.get(destination)
        return found.packed if found else None


@asynccontextmanager
async def meshed(folder: Path) -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as stack:
        yield Mesh(folder, stack)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def run(folder: Path, work: Callable[[Mesh], Awaitable[None]]) -> None:
    async def within() -> None:
        async with meshed(folder) as mesh:
            await work(mesh)

    asyncio.run(within())


def test_nodes_learn_of_each_other_and_become_peers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def work(mesh: Mesh) -> None:
        nodes = [mesh.make(name, [f"fd12:0:0:{number}::/64"]) for number, name in enumerate(("aa", "bb", "cc"), 1)]
        await mesh.start(*nodes)
        await until(lambda: all(len(node.links.statuses()) == 2 for node in nodes))
        first, second, _ = nodes
        peer = first.links.statuses()[second.agent.certificate.key]
        assert peer.endpoint == second.own[0]
        status = await first.agent.status()
        assert (status["name"], status["member"], status["bus"]) == ("aa", True, True)
        assert status["prefixes"] == ["fd12:0:0:1::/64"]
        assert [(node["name"], node["next_hop"], node["prefixes"]) for node in status["nodes"]] == [
            ("bb", "bb", ["fd12:0:0:2::/64"]),
            ("cc", "cc", ["fd12:0:0:3::/64"]),
        ]
        assert all(node["round_trip"] is None and node["handshake_age"] is None for node in status["nodes"])

    run(tmp_path, work)
    assert "bb has joined" in caplog.messages


def test_a_node_that_leaves_is_gone_at_once(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        stays, leaves = mesh.make("stays"), mesh.make("leaves")
        await mesh.start(stays, leaves)
        await until(lambda: len(stays.links.statuses()) == 1)
        assert await leaves.agent.leave() is None
        await until(lambda: not stays.links.statuses())
        assert stays.members() == {"stays"}

    run(tmp_path, work)


def test_a_node_that_cannot_tell_that_it_leaves_says_when_it_is_forgotten(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        node = mesh.make("gw")
        await mesh.start(node)
        mesh.hub.go(False)
        assert await node.agent.leave() == "the bus is away; the others forget this node 60 s after its last record"

    run(tmp_path, work)


def test_a_record_is_renewed_before_it_expires(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        one, other = mesh.make("one", expiry=0.4), mesh.make("other", expiry=0.4)
        await mesh.start(one, other)
        await until(lambda: one.members() == {"one", "other"})
        first = one.agent.membership.known["other"].sequence
        await until(lambda: one.agent.membership.known["other"].sequence > first + 400)
        assert one.members() == {"one", "other"}

    run(tmp_path, work)


def test_a_dead_node_is_forgotten_and_all_stays_while_the_bus_is_away(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        one, dead = mesh.make("one", expiry=0.4), mesh.make("dead", expiry=0.4)
        await mesh.start(one, dead)
        await until(lambda: len(one.links.statuses()) == 1)
        mesh.hub.go(False)
        await until(lambda: not one.agent.is_online)
        await mesh.stop(dead)
        expires = one.agent.membership.known["dead"].expires
        await until(lambda: now() > expires + 300)
        assert "dead" in one.members()
        mesh.hub.go(True)
        await until(lambda: not one.links.statuses())
        assert one.members() == {"one"}

    run(tmp_path, work)


def test_a_node_goes_on_with_what_it_knew_while_the_bus_is_away(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        one, other = mesh.make("one"), mesh.make("other")
        await mesh.start(one, other)
        await until(lambda: one.members() == {"one", "other"})
        sequence = one.agent.sequence
        await mesh.stop(one)
        mesh.hub.go(False)
        again = mesh.make("one")
        await mesh.start(again)
        await until(lambda: len(again.links.statuses()) == 1)
        assert again.agent.sequence > sequence

    run(tmp_path, work)


def test_the_sequence_grows_though_the_clock_was_set_back(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        node = mesh.make("gw")
        store = Store(node.store.folder)
        store.records()
        certificate, _ = store.certificate()
        ahead = now() + 50_000
        store.keep("gw", Record.sign(certificate, store.keys().signer, ahead, ahead + 1000).text)
        store.close()
        await mesh.start(node)
        await until(lambda: node.agent.sequence > ahead)

    run(tmp_path, work)


def test_endpoints_that_others_see_are_published(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        natted, public = mesh.make("natted"), mesh.make("public")
        seen = ("198.51.100.7", 40001)
        natted.prober.answers[link_local(public.agent.certificate.key)] = (0.01, seen)
        await mesh.start(natted, public)
        await until(lambda: len(public.links.statuses()) == 1 and len(natted.links.statuses()) == 1)
        # Somebody sends, so that there is a handshake.
        natted.links.device.session.send([hello(natted, public)])
        await until(lambda: public.agent.membership.known["natted"].endpoints == (seen, *natted.own))
        address = natted.agent.membership.address_of(natted.agent.membership.known["public"])
        assert address is not None
        natted.prober.answers[address] = (0.0123, None)
        (node,) = (await natted.agent.status())["nodes"]
        assert node["round_trip"] == 0.0123
        assert node["handshake_age"] < 60

    run(tmp_path, work)


def hello(one: Node, other: Node) -> bytes:
    """Return a packet from one node to the link-local address of another."""
    source, destination = (link_local(node.agent.certificate.key).packed for node in (one, other))
    return b"\x60\0\0\0\0\0\x3b\x40" + source + destination


def test_a_node_whose_prefix_an_earlier_one_has_says_that_it_is_no_member(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(mesh: Mesh) -> None:
        early = Signer("early", ["fd12:0:0:7::/64"], issued=-1000)
        mesh.hub.put("early", early.record().text.encode())
        late = mesh.make("late", ["fd12:0:0:7::/64"])
        await mesh.start(late)
        await until(lambda: late.members() == {"early"})
        status = await late.agent.status()
        assert status["member"] is False
        assert status["refused"] == {"clash": status["refused"]["clash"]}

    run(tmp_path, work)
    assert "the record of late is refused (clash)" in caplog.text


def test_another_agent_with_the_same_keys_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(mesh: Mesh) -> None:
        node = mesh.make("gw")
        await mesh.start(node)
        await until(lambda: "gw" in mesh.hub.records)
        time = now() + 1000
        record = Record.sign(node.agent.certificate, node.store.keys().signer, time, time + 60_000)
        mesh.hub.put("gw", record.text.encode())
        await until(lambda: "another agent uses the name and the keys of this node, gw" in caplog.text)

    run(tmp_path, work)


def test_a_record_that_was_replaced_on_the_bus_is_put_back(tmp_path: Path) -> None:
    """New nodes get what the bus has, which may be the record of a node whose certificate was replaced."""

    async def work(mesh: Mesh) -> None:
        replaced, node = Signer("gw", issued=-1_000), mesh.make("gw")
        await mesh.start(node)
        await until(lambda: "gw" in mesh.hub.records)
        for lie in (replaced.record(2_000).text.encode(), b"nonsense"):
            mesh.hub.put("gw", lie)
            await until(lambda lie=lie: mesh.hub.records["gw"] != lie)  # type: ignore[misc]
        assert mesh.hub.records["gw"] == node.agent.membership.known["gw"].text.encode()

    run(tmp_path, work)


def test_an_own_record_that_the_bus_tells_of_late_is_not_another_agents(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(mesh: Mesh) -> None:
        node = mesh.make("gw")
        await mesh.start(node)
        await until(lambda: "gw" in mesh.hub.records)
        first = mesh.hub.records["gw"]
        node.agent.online()  # It publishes a new one.
        await until(lambda: mesh.hub.records["gw"] != first)
        mesh.hub.put("gw", first)
        assert not node.agent.membership.refused

    run(tmp_path, work)


class FullBus(FakeBus):
    """A bus that takes nothing while it is full."""

    full = True

    async def put(self, name: str, data: bytes) -> None:
        if self.full:
            raise EndpointError(None, "the bus is full")
        await super().put(name, data)


def test_a_bus_that_refuses_is_asked_again_and_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("threepipe.mesh.agent._RETRY", 0.01)

    async def work(mesh: Mesh) -> None:
        node = mesh.make("gw")
        node.agent._bus = bus = FullBus(mesh.hub)
        await mesh.start(node)
        first = node.agent.sequence
        await until(lambda: node.agent.sequence > first + 30)
        bus.full = False
        await until(lambda: "gw" in mesh.hub.records)

    run(tmp_path, work)
    assert caplog.messages.count("the bus is full") == 1


def test_nobody_is_forgotten_while_the_bus_takes_nothing(tmp_path: Path) -> None:
    """The others are silent as this node is: their records are refused too."""

    async def work(mesh: Mesh) -> None:
        one, other = mesh.make("one", expiry=0.4), mesh.make("other", expiry=0.4)
        buses = [FullBus(mesh.hub), FullBus(mesh.hub)]
        for node, bus in zip((one, other), buses, strict=True):
            bus.full = False
            node.agent._bus = bus
        await mesh.start(one, other)
        await until(lambda: one.members() == other.members() == {"one", "other"})
        for bus in buses:
            bus.full = True
        expires = max(node.agent.membership.known[name].expires for node in (one, other) for name in ("one", "other"))
        await until(lambda: now() > expires + 500)
        assert one.members() == other.members() == {"one", "other"}
        await mesh.stop(other)
        buses[0].full = False
        await until(lambda: one.members() == {"one"})

    run(tmp_path, work)


@pytest.mark.parametrize("jump", [3_600_000, -3_600_000], ids=["an hour ahead", "an hour back"])
def test_a_clock_that_jumps_makes_nobody_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    """The machine has slept, or its clock was set; the others go on, and are heard again."""

    async def work(mesh: Mesh) -> None:
        node, other = mesh.make("gw"), Signer("other")
        mesh.hub.put("other", other.record().text.encode())
        await mesh.start(node)
        await until(lambda: len(node.links.statuses()) == 1)
        before = node.agent.membership.known["gw"]
        monkeypatch.setattr("threepipe.mesh.agent.now", lambda: now() + jump)
        await until(lambda: abs(node.agent.sequence - before.sequence - jump) < 60_000)  # It tells of itself at once.
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert node.members() == {"gw", "other"}

    run(tmp_path, work)


def test_a_node_that_was_far_ahead_goes_on_by_the_right_clock(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        node = mesh.make("gw")
        certificate, _ = node.store.certificate()
        ahead = now() + 3_600_000
        node.store.records()
        node.store.keep("gw", Record.sign(certificate, node.store.keys().signer, ahead, ahead + 1000).text)
        node.store.close()
        await mesh.start(node)
        await until(lambda: "gw" in mesh.hub.records)
        assert node.agent.sequence < ahead
        assert node.members() == {"gw"}

    run(tmp_path, work)


def test_a_node_whose_certificate_was_replaced_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Else its records would hide those of its successor on the bus."""

    async def work(mesh: Mesh) -> None:
        old, successor = mesh.make("gw", expiry=0.4), Signer("gw", issued=1_000)
        await mesh.start(old)
        await until(lambda: "gw" in mesh.hub.records)
        mesh.hub.put("gw", successor.record(1_000).text.encode())
        sequence = old.agent.sequence
        await until(lambda: old.agent.sequence > sequence)
        await until(lambda: old.links.statuses())  # The successor is a node as any other.
        assert mesh.hub.records["gw"] == successor.record(1_000).text.encode()
        status = await old.agent.status()
        assert status["member"] is False
        assert [node["name"] for node in status["nodes"]] == ["gw"]

    run(tmp_path, work)
    assert "the authority has signed other keys for the name of this node, gw, which is no member any more" in (
        caplog.messages
    )


def test_the_newest_record_of_each_node_is_kept(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        node, other = mesh.make("gw"), Signer("other")
        await mesh.start(node)
        for number in range(3):
            mesh.hub.put("other", other.record(number).text.encode())
        await mesh.stop(node)
        again = mesh.make("gw")
        texts = again.store.records()
        assert other.record(2).text in texts
        assert len(texts) == 2

    run(tmp_path, work)


def test_a_full_disk_is_logged_and_the_mesh_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Full(Store):
        def keep(self, name: str, text: str) -> None:
            raise EndpointError(None, "no space left")

    async def work(mesh: Mesh) -> None:
        node = mesh.make("gw")
        node.agent._store = Full(node.store.folder)
        await mesh.start(node)
        await until(lambda: node.members() == {"gw"})
        node.agent._store.close()

    run(tmp_path, work)
    assert "no space left" in caplog.messages


def test_an_endpoint_in_the_mesh_that_others_see_is_not_published(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        one, other = mesh.make("one"), mesh.make("other")
        inside = (str(one.agent.address), 40001)
        one.prober.answers[link_local(other.agent.certificate.key)] = (0.01, inside)
        await mesh.start(one, other)
        await until(lambda: len(one.links.statuses()) == 1 and len(other.links.statuses()) == 1)
        one.links.device.session.send([hello(one, other)])
        await until(lambda: inside in one.agent._seen)
        one.agent.online()  # It publishes anew.
        await until(lambda: one.agent.sequence > one.agent.certificate.issued + 1)
        assert other.agent.membership.known["one"].endpoints == tuple(one.own)

    run(tmp_path, work)


def test_an_error_of_the_bus_ends_the_agent(tmp_path: Path) -> None:
    class Broken(FakeBus):
        async def run(self, listener: object) -> None:
            raise ValueError("broken")

    async def work(mesh: Mesh) -> None:
        node = mesh.make("gw")
        node.agent._bus = Broken(mesh.hub)
        await mesh.start(node)
        assert node.task is not None
        with pytest.raises(ValueError, match="broken"):
            await node.task

    run(tmp_path, work)
