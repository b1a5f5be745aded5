"""Meshes of agents with a real nats-server: nodes join, leave, move and die, the bus goes away, and others lie on it.

pytest shows the figures with -s.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh_agents import AgentLab, AgentNode, agent_lab, missing
from tests.support.waiting import come_true
from threepipe.mesh import Certificate, Keys, Record, make_authority, read_authority
from threepipe.mesh.agent import now
from threepipe.wireguard import generate_key, parse_networks

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.soak,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing()), reason=f"{', '.join(missing())}: not there; install nats-server, nftables"),
]

YEAR = 365 * 86_400_000
SEED = bytes(range(32))
AWAY = 60  # Seconds.


def started(lab: AgentLab, count: int, *options: str) -> list[AgentNode]:
    nodes = [lab.add(f"n{number}", (f"fd12:3456:789a:{number}::/64",)) for number in range(1, count + 1)]
    for node in nodes:
        node.start(*options)
    assert come_true(lab.know_each_other, 60)
    return nodes


def show(figures: str) -> None:
    print(f"\n{figures}")  # noqa: T201


def is_logged(node: AgentNode, text: str) -> bool:
    return text in node.log


def on_bus(lab: AgentLab, work: Callable[[Any], Awaitable[object]]) -> Any:
    """Do something with JetStream, as any client of the bus can, and return its result."""

    async def run() -> object:
        import nats

        client = await nats.connect(lab.nats.url)
        try:
            return await work(client.jetstream())
        finally:
            await client.close()

    return lab.hub.namespace.run(lambda: asyncio.run(run()))


def put(lab: AgentLab, name: str, record: str) -> None:
    async def work(stream: Any) -> None:
        await (await stream.key_value("mesh")).put(name, record.encode())

    on_bus(lab, work)


def get(lab: AgentLab, name: str) -> str:
    async def work(stream: Any) -> str:
        entry = await (await stream.key_value("mesh")).get(name)
        text: str = entry.value.decode()
        return text

    found: str = on_bus(lab, work)
    return found


def delete(lab: AgentLab, name: str) -> None:
    async def work(stream: Any) -> None:
        await (await stream.key_value("mesh")).delete(name)

    on_bus(lab, work)


def names_on_bus(lab: AgentLab) -> set[str]:
    """Return the names of the nodes with a record; none while there is no bucket."""
    from nats.js.errors import BucketNotFoundError, NoKeysError

    async def work(stream: Any) -> set[str]:
        try:
            return set(await (await stream.key_value("mesh")).keys())
        except (BucketNotFoundError, NoKeysError):
            return set()

    found: set[str] = on_bus(lab, work)
    return found


def reached(one: AgentNode, other: AgentNode) -> bool:
    return "1 received" in one.network.run("ping", "-6", "-c1", "-W1", str(other.address), check=False)


def test_a_node_that_joins_is_reached_by_all_within_two_seconds(tmp_path: Path) -> None:
    with agent_lab(tmp_path) as lab:
        nodes = started(lab, 5)
        late = lab.add("late")
        begin = time.monotonic()
        late.start()
        assert come_true(lab.know_each_other, 20)
        known = time.monotonic() - begin
        assert all(reached(node, late) for node in nodes)
        show(f"known to all after {known:.2f} s, reached by all after {time.monotonic() - begin:.2f} s")
        assert known < 2


def test_a_killed_node_is_forgotten_at_its_expiry_and_one_that_leaves_at_once(tmp_path: Path) -> None:
    with agent_lab(tmp_path) as lab:
        one, dead, leaver = started(lab, 3, "--expiry", "4")
        begin = time.monotonic()
        dead.kill()
        assert come_true(lambda: str(dead.address) not in one.routes(), 20)
        forgotten = time.monotonic() - begin
        begin = time.monotonic()
        leaver.call("mesh", "leave")
        assert come_true(lambda: str(leaver.address) not in one.routes(), 20)
        left = time.monotonic() - begin
        show(f"killed: forgotten after {forgotten:.2f} s of 4; left: gone after {left:.2f} s")
        assert forgotten < 5
        assert left < 3
        assert leaver.process is not None
        assert leaver.process.wait(10) == 0


def test_no_probe_is_lost_while_the_bus_is_away_for_longer_than_records_last(tmp_path: Path) -> None:
    with agent_lab(tmp_path) as lab:
        one, other, dies = started(lab, 3, "--expiry", "4")
        with lab.probing(one, other) as probe:
            assert come_true(lambda: probe().arrived > 100, 30)
            lab.nats.kill()
            dies.kill()
            away = time.monotonic() + AWAY
            assert come_true(lambda: time.monotonic() > away, 2 * AWAY)
            assert str(dies.address) in one.routes()  # Nobody knows whether it lives.
            lab.nats.start()
            begin = time.monotonic()
            assert come_true(lambda: str(dies.address) not in one.routes(), 20)
            forgotten = time.monotonic() - begin
            assert come_true(lambda: one.status()["bus"], 20)
        sent, arrived = probe()
        figures = f"{sent} probes, {sent - arrived} lost; the dead one is forgotten after {forgotten:.1f} s"
        show(f"bus away for {AWAY} s, records for 4 s: {figures}")
        assert sent - arrived <= 1  # The last one may be on its way.
        assert str(other.address) in one.routes()


def test_a_bucket_that_is_deleted_is_made_anew_and_nobody_is_forgotten(tmp_path: Path) -> None:
    with agent_lab(tmp_path) as lab:
        nodes = started(lab, 3, "--expiry", "12")
        with lab.probing(nodes[0], nodes[1]) as probe:
            assert come_true(lambda: probe().arrived > 100, 30)
            on_bus(lab, lambda stream: stream.delete_key_value("mesh"))
            begin = time.monotonic()
            assert come_true(lambda: names_on_bus(lab) == {"n1", "n2", "n3"}, 60)
            whole = time.monotonic() - begin
            nodes.append(lab.add("late"))
            nodes[-1].start()
            assert come_true(lab.know_each_other, 20)
        sent, arrived = probe()
        show(f"bucket deleted: all records there again after {whole:.1f} s; {sent} probes, {sent - arrived} lost")
        assert sent - arrived <= 1
        assert not any("is gone" in node.log for node in nodes)


def test_a_node_goes_on_with_what_it_knew_if_it_starts_while_the_bus_is_away(tmp_path: Path) -> None:
    with agent_lab(tmp_path) as lab:
        one, other = started(lab, 2)
        lab.nats.kill()
        one.kill()
        one.start()
        assert come_true(lambda: str(other.address) in one.routes(), 20)
        assert come_true(lambda: reached(one, other), 20)


def test_lies_on_the_bus_are_refused_and_change_nothing(tmp_path: Path) -> None:
    with agent_lab(tmp_path) as lab:
        one, other = started(lab, 2, "--expiry", "60")
        old = get(lab, "n2")
        other.kill()
        other.start("--expiry", "60")
        assert come_true(lambda: get(lab, "n2") != old, 20)
        before = one.routes(), one.call("wg", "show", "mesh0", "endpoints")
        make_authority(tmp_path / "stranger")
        keys = Keys(generate_key(), SEED)

        def record(seed: bytes, grants: str, announced: str, name: str = "evil") -> str:
            networks = parse_networks([grants])
            made = Certificate.issue(seed, keys.request(name), networks, now(), now() + YEAR)
            return Record.sign(made, SEED, now(), now() + 60_000, [], parse_networks([announced])).text

        stranger = read_authority(tmp_path / "stranger")
        theirs = "fd12:3456:789a:2::/64"
        with lab.probing(one, other) as probe:
            lies = {
                "forged": ("evil", record(stranger, theirs, theirs)),
                "forged ": ("n2", record(lab.authority, theirs, theirs)),
                "replayed": ("n2", old),
                "prefix": ("evil2", record(lab.authority, "fd12:3456:789a:9::/64", theirs, "evil2")),
                "clash": ("evil3", record(lab.authority, theirs, theirs, "evil3")),
            }
            for kind, (name, text) in lies.items():
                put(lab, name, text)
                expected = f"the record of {name} is refused ({kind.strip()})"
                assert come_true(partial(is_logged, one, expected), 20), one.log
            delete(lab, "n2")
            assert one.status()["refused"].keys() == {"forged", "replayed", "prefix", "clash"}
        sent, arrived = probe()
        show("" + "\n".join(line for line in one.log.splitlines() if "refused" in line))
        assert (one.routes(), one.call("wg", "show", "mesh0", "endpoints")) == before
        assert sent - arrived <= 1


def test_a_node_that_moves_is_followed(tmp_path: Path) -> None:
    with agent_lab(tmp_path) as lab:
        one, mover = started(lab, 2)
        assert come_true(lambda: reached(one, mover), 20)
        begin = time.monotonic()
        mover.network.run("ip", "address", "del", "192.0.2.2/24", "dev", "v0")
        mover.network.run("ip", "address", "add", "192.0.2.77/24", "dev", "v0")
        assert come_true(lambda: "192.0.2.77" in one.call("wg", "show", "mesh0", "endpoints"), 40)
        assert come_true(lambda: reached(one, mover), 20)
        show(f"reached at its new address after {time.monotonic() - begin:.1f} s")


def test_a_signal_ends_the_agent_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with agent_lab(tmp_path) as lab:
        (node,) = started(lab, 1)
        assert come_true(node.is_up, 20)
        assert node.process is not None
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(20) == 0
        assert "mesh0" not in node.network.run("ip", "link")


def test_two_nodes_behind_nats_reach_each_other_directly(tmp_path: Path) -> None:
    with agent_lab(tmp_path) as lab, ExitStack() as stack:
        lab.add("public")
        one, other = (lab.add(name) for name in ("one", "other"))
        for node in (one, other):
            node.move_behind_nat(stack)
        for node in lab.nodes:
            node.start()
        assert come_true(lab.know_each_other, 60)
        begin = time.monotonic()
        assert come_true(lambda: reached(one, other), 60), f"{one.call('mesh', 'status')}{other.call('mesh', 'status')}"
        show(f"reached after {time.monotonic() - begin:.1f} s")
        (found,) = [node for node in one.status()["nodes"] if node["name"] == "other"]
        assert found["next_hop"] == "other"
        assert found["endpoint"].startswith("192.0.2.3:")
