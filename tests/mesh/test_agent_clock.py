"""Agents whose clocks are wrong, or are set."""

from pathlib import Path

import pytest

from tests.support.mesh_bus import Signer
from tests.support.mesh_nodes import Mesh, run, until
from threepipe.mesh import Record, Store
from threepipe.mesh.agent import now


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
        await until(lambda: "gw" in mesh.hub.records)
        assert node.agent.membership.known["gw"].sequence > ahead

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
        ticks = node.ticks
        await until(lambda: node.ticks > ticks + 5)
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
