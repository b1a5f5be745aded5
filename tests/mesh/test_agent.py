"""Agents that join a mesh, renew their records, and leave."""

import logging
from pathlib import Path

import pytest

from tests.support.mesh_bus import Signer
from tests.support.mesh_nodes import Mesh, run, until
from threepipe.errors import EndpointError
from threepipe.mesh import Record, Store
from threepipe.mesh.agent import now


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


def test_a_record_is_renewed_before_it_expires(tmp_path: Path) -> None:
    async def work(mesh: Mesh) -> None:
        one, other = mesh.make("one", expiry=0.4), mesh.make("other", expiry=0.4)
        await mesh.start(one, other)
        await until(lambda: one.members() == {"one", "other"})
        first = one.agent.membership.known["other"].sequence
        await until(lambda: one.agent.membership.known["other"].sequence > first + 400)
        assert one.members() == {"one", "other"}

    run(tmp_path, work)


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
        assert node.agent.membership.known["gw"].text == record.text

    run(tmp_path, work)
    assert "another agent uses the name and the keys of this node, gw; end one of the two" in caplog.messages


def test_a_node_whose_certificate_was_replaced_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise its records would hide those of its successor on the bus."""

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
    text = "the authority has signed other keys for the name gw; to be a member again, have it sign this node"
    assert text in caplog.messages


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
