"""Agents: the endpoints that they publish."""

from pathlib import Path

from tests.support.mesh_nodes import Mesh, hello, run, until
from threepipe.wireguard import link_local


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
