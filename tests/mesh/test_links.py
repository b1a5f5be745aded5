"""Members as peers of a device and as routes."""

import socket
import threading
from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest

from tests.support.mesh_bus import NETWORKS, Signer
from tests.support.mesh_nodes import SettableRoutes, drain
from tests.support.waiting import come_true
from threepipe.mesh import Change, Links
from threepipe.settings import Network
from threepipe.wireguard import Device, NextHopRouting, PeerChange, generate_key, link_local
from threepipe.wireguard.settings import Change as Settings

HERE, THERE, AWAY = ("192.0.2.1", 51820), ("198.51.100.7", 40001), ("10.0.0.2", 51820)


@pytest.fixture
def links() -> Iterator[Links]:
    routes = SettableRoutes()
    with Device(private_key=generate_key(), routing=NextHopRouting(NETWORKS, routes)) as device:
        yield Links(device, routes, NETWORKS, 25)


def routes_of(links: Links) -> dict[Network, IPv6Address]:
    assert isinstance(links.routes, SettableRoutes)
    return links.routes.present


def endpoint(links: Links, node: Signer) -> tuple[str, int] | None:
    return links.statuses()[node.request.key].endpoint


def join(links: Links, node: Signer, *endpoints: tuple[str, int]) -> None:
    links.apply([Change("joined", node.record(endpoints=endpoints))])


def test_a_member_is_a_peer_with_routes_by_its_link_local_address(links: Links) -> None:
    node = Signer("gw", ["fd12:0:0:7::/64", "10.42.7.0/24"])
    join(links, node, HERE)
    (peer,) = links.device.status().peers
    assert (peer.public_key, peer.endpoint, peer.persistent_keepalive) == (node.request.key, HERE, 25)
    hop = link_local(node.request.key)
    assert set(routes_of(links).values()) == {hop}
    assert len(routes_of(links)) == 3
    (address,) = [network.network_address for network in routes_of(links) if network.prefixlen == 128]
    assert isinstance(address, IPv6Address)
    assert links.next_hop(address) == hop
    assert links.endpoint_of(hop) == HERE
    links.apply([Change("gone", node.record())])
    assert not routes_of(links)
    assert not links.device.status().peers
    assert links.next_hop(address) is None
    assert links.endpoint_of(hop) is None


def test_a_member_without_endpoints_waits_to_be_called(links: Links) -> None:
    node = Signer("gw")
    join(links, node)
    links.retry([])
    assert endpoint(links, node) is None


def test_a_member_that_moves_is_tried_at_its_first_endpoint(links: Links) -> None:
    node = Signer("gw")
    join(links, node, HERE)
    links.apply([Change("moved", node.record(endpoints=[THERE, HERE]))])
    assert endpoint(links, node) == THERE


def test_a_member_that_moves_before_it_was_reached_is_called_at_once(links: Links) -> None:
    """A device that has called begins anew after 5 s only: for so long a node that restarts would not be reached."""
    node = Signer("gw")
    with socket.socket(type=socket.SOCK_DGRAM) as old, socket.socket(type=socket.SOCK_DGRAM) as new:
        for bound in (old, new):
            bound.bind(("127.0.0.1", 0))
        new.settimeout(3)
        old.settimeout(10)
        join(links, node, old.getsockname())
        assert old.recv(200)
        links.apply([Change("moved", node.record(endpoints=[new.getsockname()]))])
        assert new.recv(200)


def test_a_reached_member_that_moves_keeps_its_session(links: Links) -> None:
    node, own = Signer("gw"), links.device.status()
    with Device(private_key=node.keys.wireguard) as device:
        other = PeerChange(own.public_key, endpoint=("127.0.0.1", own.listen_port))
        device.configure(Settings(peers=[other]))
        threads = [threading.Thread(target=drain, args=(each,)) for each in (device, links.device)]
        for thread in threads:
            thread.start()
        join(links, node, ("127.0.0.1", device.status().listen_port))
        assert come_true(lambda: links.statuses()[node.request.key].has_session, 20)
        for endpoints in ([("127.0.0.1", device.status().listen_port), THERE], [THERE]):
            links.apply([Change("moved", node.record(endpoints=endpoints))])
            assert endpoint(links, node) == endpoints[0]
            assert links.statuses()[node.request.key].has_session
        links.device.close()
    for thread in threads:
        thread.join()


def test_a_peer_that_somebody_has_removed_comes_back_when_it_moves(links: Links) -> None:
    node = Signer("gw")
    join(links, node, HERE)
    links.device.configure(Settings(peers=[PeerChange(node.request.key, remove=True)]))
    links.retry([])
    links.apply([Change("moved", node.record(endpoints=[THERE]))])
    (peer,) = links.device.status().peers
    assert (peer.endpoint, peer.persistent_keepalive) == (THERE, 25)


def test_endpoints_are_tried_in_turn_until_one_answers(links: Links) -> None:
    node = Signer("gw")
    join(links, node, THERE, AWAY)
    tried = []
    for _ in range(8):
        links.retry([HERE])
        tried.append(endpoint(links, node))
    assert tried == [THERE, AWAY, AWAY, THERE, THERE, AWAY, AWAY, THERE]


def test_behind_the_same_nat_the_addresses_of_interfaces_are_tried_first(links: Links) -> None:
    links.retry([("198.51.100.7", 40009)])
    node = Signer("gw")
    join(links, node, THERE, AWAY)
    assert endpoint(links, node) == AWAY


def test_a_refused_route_is_logged_and_the_peer_stays(links: Links, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(links.routes, SettableRoutes)
    links.routes.refuses = True
    join(links, Signer("gw"), HERE)
    assert caplog.messages[0].startswith("the route of gw to fd12:")
    assert len(links.device.status().peers) == 1


def test_no_changes_are_no_work(links: Links) -> None:
    links.apply([])
    links.retry([])
    assert not links.device.status().peers
