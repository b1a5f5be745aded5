"""Agents whose bus is away, refuses records, has other records than theirs, or fails."""

from pathlib import Path

import pytest

from tests.support.mesh_bus import FakeBus, Signer
from tests.support.mesh_nodes import Mesh, run, until
from threepipe.errors import EndpointError
from threepipe.mesh.agent import now


def test_a_node_that_cannot_tell_that_it_leaves_says_when_it_is_forgotten(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        node = mesh.make("gw")
        await mesh.start(node)
        mesh.hub.go(False)
        assert await node.agent.leave() == "the bus is away; the others forget this node 60 s after its last record"

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


def test_a_record_that_was_replaced_on_the_bus_is_put_back(tmp_path: Path) -> None:
    """New nodes get the record on the bus, which may be of a node whose certificate was replaced."""

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
