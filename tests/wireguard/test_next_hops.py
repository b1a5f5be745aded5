"""Routing by next hops: which peer a packet is for, and what a peer may send from."""

import gc
import hashlib
import ipaddress
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.support.mesh import TableOfRoutes
from tests.support.wireguard_pair import End, Network, packet
from threepipe.errors import InvalidSetting
from threepipe.wireguard import Change, NextHopRouting, PeerChange, link_local
from threepipe.wireguard.next_hops import NextHops
from threepipe.wireguard.values import key_from_text, key_to_text

MESH = "fd12:3456:789a::/48", "10.42.0.0/16"
ANY_SOURCE = "fd12:3456:789a::99"
HELLO = "ff02::1:6"


class Mesh:
    """A node, its neighbours, and its routes; everyone's peers are the node and the neighbours."""

    def __init__(self, count: int = 3) -> None:
        self.network = Network()
        self.routes = TableOfRoutes()
        self.node = End(self.network, routing=NextHopRouting(MESH, self.routes))
        self.neighbours = [End(self.network, routing=NextHopRouting(MESH, self.to_node())) for _ in range(count)]
        for other in self.neighbours:
            self.node.add(other)
            other.add(self.node)

    def to_node(self) -> TableOfRoutes:
        routes = TableOfRoutes()
        for network in ("0.0.0.0/0", "::/0"):
            routes.set(network, self.node.public)
        return routes

    def send(self, destination: str, source: str = ANY_SOURCE, data: bytes = b"") -> None:
        self.node.send(packet(source, destination, data))
        self.network.settle()

    def route(self, network: str, end: End | None) -> None:
        self.routes.set(network, None if end is None else end.public)
        self.node.tunnel.change_routes([ipaddress.ip_network(network)])

    def counts(self) -> list[int]:
        return [len(other.packets) for other in self.neighbours]


def test_link_local_is_the_start_of_the_keys_blake2s_hash_in_either_form() -> None:
    key = key_from_text("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")
    address = link_local(key)
    assert address.packed == bytes.fromhex("fe80000000000000") + hashlib.blake2s(key, digest_size=32).digest()[:8]
    assert str(address) == str(link_local(key_to_text(key))) == "fe80::869b:3b89:c483:1cd3"


def test_routing_without_networks_of_the_mesh_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="give the networks of the mesh"):
        NextHopRouting((), TableOfRoutes())


@pytest.mark.parametrize(
    ("route", "destination", "source"),
    [
        ("fd12:3456:789a:5::/64", "fd12:3456:789a:5::1", ANY_SOURCE),
        ("2001:db8::/32", "2001:db8::7", ANY_SOURCE),
        ("10.42.7.0/24", "10.42.7.1", "10.42.0.1"),
    ],
    ids=["in the mesh", "outside", "IPv4"],
)
def test_a_packet_goes_to_the_next_hop_of_its_route_and_to_no_other(route: str, destination: str, source: str) -> None:
    mesh = Mesh()
    mesh.route(route, mesh.neighbours[1])
    mesh.send(destination, source)
    mesh.send(destination, source)
    assert mesh.counts() == [0, 2, 0]
    assert mesh.routes.asked == [(destination, source if ":" in source else "")], "the result is kept"


def test_a_packet_follows_a_changed_route_while_those_of_others_stay() -> None:
    mesh = Mesh()
    mesh.route("fd12:3456:789a:5::/64", mesh.neighbours[0])
    mesh.route("fd12:3456:789a:6::/64", mesh.neighbours[1])
    for network in (5, 6):
        mesh.send(f"fd12:3456:789a:{network}::1")
    mesh.route("fd12:3456:789a:5::/64", mesh.neighbours[2])
    for network in (5, 6):
        mesh.send(f"fd12:3456:789a:{network}::1")
    assert mesh.counts() == [1, 2, 1]
    assert [destination for destination, _ in mesh.routes.asked] == [
        "fd12:3456:789a:5::1",
        "fd12:3456:789a:6::1",
        "fd12:3456:789a:5::1",
    ]


def test_a_packet_without_a_route_or_to_a_hop_that_is_no_peer_is_counted() -> None:
    mesh = Mesh()
    mesh.route("fd12:3456:789a:5::/64", End(mesh.network))
    mesh.send("fd12:3456:789a:5::1")
    mesh.send("fd12:3456:789a:6::1")
    assert mesh.counts() == [0, 0, 0]
    assert mesh.node.tunnel.rejected == {"no peer for the destination": 2}


def test_a_packet_to_a_link_local_address_goes_to_its_peer_without_a_route() -> None:
    mesh = Mesh()
    mesh.send(str(link_local(mesh.neighbours[2].public)), str(link_local(mesh.node.public)))
    assert (mesh.counts(), mesh.routes.asked) == ([0, 0, 1], [])


def test_a_peer_that_is_added_later_is_a_next_hop_at_once_and_a_removed_one_no_more() -> None:
    mesh = Mesh(1)
    late = End(mesh.network, routing=NextHopRouting(MESH, mesh.to_node()))
    late.add(mesh.node)
    mesh.route("fd12:3456:789a:5::/64", late)
    mesh.send("fd12:3456:789a:5::1")
    mesh.node.add(late)
    mesh.send("fd12:3456:789a:5::1")
    assert len(late.packets) == 1
    mesh.node.tunnel.configure(Change(peers=[PeerChange(late.public, remove=True)]), mesh.network.now)
    mesh.send("fd12:3456:789a:5::1")
    assert len(late.packets) == 1
    assert mesh.node.tunnel.rejected == {"no peer for the destination": 2}


@pytest.mark.parametrize("group", [HELLO, "ff12::99", "224.0.0.5"])
def test_a_packet_to_a_group_of_the_link_is_copied_to_every_peer(group: str) -> None:
    mesh = Mesh()
    source = "10.42.0.1" if "." in group else str(link_local(mesh.node.public))
    for number in range(3):
        mesh.send(group, source, bytes([number]))
    assert [[each[-1] for each in other.packets] for other in mesh.neighbours] == [[0, 1, 2]] * 3
    assert mesh.routes.asked == []


@pytest.mark.parametrize("group", ["ff05::2", "239.1.1.1", "224.0.1.1", "255.255.255.255"])
def test_a_packet_to_a_group_beyond_the_link_is_not_copied(group: str) -> None:
    mesh = Mesh()
    mesh.send(group, "10.42.0.1" if "." in group else ANY_SOURCE)
    assert mesh.counts() == [0, 0, 0]


def test_of_packets_to_groups_the_first_waits_for_a_session_and_the_others_are_counted() -> None:
    mesh = Mesh()
    mesh.neighbours[0].suspended = True
    nowhere = End(mesh.network)
    mesh.node.add(nowhere, endpoint=False)
    for number in range(3):
        mesh.send(HELLO, str(link_local(mesh.node.public)), bytes([number]))
    assert mesh.counts() == [0, 3, 3]
    assert mesh.node.tunnel.rejected == {"multicast to a peer without a session": 2 + 3}
    mesh.neighbours[0].suspended = False
    mesh.network.advance(6)
    assert [each[-1] for each in mesh.neighbours[0].packets] == [0]


@pytest.mark.parametrize(
    ("allowed", "source", "passes"),
    [
        ((), ANY_SOURCE, True),
        ((), "10.42.9.9", True),
        ((), "2001:db8::1", False),
        ((), "10.43.0.1", False),
        (("2001:db8::/32",), "2001:db8::1", True),
        (("2001:db8::/32",), ANY_SOURCE, False),
        (("::/0",), "fe80::1", False),
    ],
)
def test_a_source_passes_if_it_is_in_the_networks_of_the_peer_or_else_of_the_mesh(
    allowed: tuple[str, ...], source: str, passes: bool
) -> None:
    mesh = Mesh(1)
    (other,) = mesh.neighbours
    mesh.node.tunnel.configure(Change(peers=[PeerChange(other.public, allowed_ips=allowed)]), mesh.network.now)
    sent = packet(source, "10.42.0.1" if "." in source else "fd12:3456:789a::1")
    for _ in range(2):
        other.send(sent)
        mesh.network.settle()
    assert mesh.node.packets == [sent] * 2 * passes
    assert mesh.node.tunnel.rejected.total() == (0 if passes else 2)


def test_a_peer_may_send_from_its_own_link_local_address_and_not_from_that_of_another() -> None:
    mesh = Mesh(2)
    mesh.node.tunnel.configure(
        Change(peers=[PeerChange(mesh.neighbours[0].public, allowed_ips=["::/0"])]), mesh.network.now
    )
    for source in mesh.neighbours:
        mesh.neighbours[0].send(packet(str(link_local(source.public)), HELLO))
        mesh.network.settle()
    assert [each[8:24] for each in mesh.node.packets] == [link_local(mesh.neighbours[0].public).packed]
    assert mesh.node.tunnel.rejected == {"source is not among the peer's allowed IPs": 1}


def test_peers_have_the_same_networks_and_keep_them_while_another_loses_them() -> None:
    mesh = Mesh(2)
    first, second = mesh.neighbours
    changes = [PeerChange(each.public, allowed_ips=["2001:db8::/32", "2001:db9::/32"]) for each in (first, second)]
    changes += [PeerChange(first.public, removed_ips=["2001:db8::/32", "2001:dba::/32"])]
    mesh.node.tunnel.configure(Change(peers=changes), mesh.network.now)
    networks = [list(map(str, peer.allowed_ips)) for peer in mesh.node.tunnel.status(mesh.network.now).peers]
    assert networks == [["2001:db9::/32"], ["2001:db8::/32", "2001:db9::/32"]]
    for each in (first, second):
        each.send(packet("2001:db8::1", "fd12:3456:789a::1"))
        mesh.network.settle()
    assert len(mesh.node.packets) == 1


def test_results_beyond_the_limit_replace_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threepipe.wireguard.next_hops._MAX_KNOWN", 2)
    routes = TableOfRoutes()
    routes.set("10.0.0.0/8", b"\1" * 32)
    hops = NextHops[str](NextHopRouting(MESH, routes))
    hops.add("one", link_local(b"\1" * 32).packed)
    for _ in range(2):
        for last in range(3):
            assert hops.find(bytes([10, 0, 0, last])) == "one"
            assert hops.allows(bytes([10, 42, 0, last]), "one")
    assert len(routes.asked) > 3


def test_changes_are_the_forgotten_networks_and_what_was_found_since() -> None:
    routes = TableOfRoutes()
    routes.set("10.0.0.0/8", b"\1" * 32)
    hops = NextHops[str](NextHopRouting(MESH, routes))
    hops.add("one", link_local(b"\1" * 32).packed)
    hops.track()
    assert hops.changes() == ([], {})
    for address in (b"\x0a\0\0\1", b"\x0a\1\0\1", b"\x0b\0\0\1", b"\xe0\0\0\1"):
        hops.find(address)
    changed = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("::/0")]
    hops.forget(changed)
    assert hops.changes() == (changed, {b"\x0a\0\0\1": "one"})
    assert hops.changes() == ([], {})
    hops.discard("one")
    assert (hops.sources("one"), hops.address("one"), hops.allows(b"\x0a\x2a\0\1", "one")) == ((), None, False)


def test_a_peer_that_is_added_leaves_the_results_for_others_as_they_are() -> None:
    mesh = Mesh()
    mesh.route("fd12:3456:789a:5::/64", mesh.neighbours[0])
    mesh.send("fd12:3456:789a:5::1")
    mesh.node.add(End(mesh.network))
    mesh.send("fd12:3456:789a:5::1")
    assert mesh.counts() == [2, 0, 0]
    assert len(mesh.routes.asked) == 1


def steps(work: Callable[[], object]) -> int:
    """Return how many lines of Python `work` takes."""
    count, before = 0, sys.gettrace()

    def trace(frame: FrameType, event: str, value: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    gc.disable()  # Garbage of other tests would be finalized by Python's code.
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


@pytest.mark.parametrize("change", ["route", "peer"])
def test_a_change_of_one_among_many_costs_as_much_as_among_few(change: str) -> None:
    def cost(count: int) -> int:
        routes = TableOfRoutes()
        hops = NextHops[int](NextHopRouting(MESH, routes))
        hops.track()
        for number in range(count):
            key, address = number.to_bytes(32), (10 << 24 | number).to_bytes(4)
            routes.set(f"{ipaddress.ip_address(address)}/32", key)
            hops.add(number, link_local(key).packed)
            assert hops.find(address) == number
        hops.changes()
        changed = [ipaddress.ip_network("10.0.0.1/32")]
        return steps((lambda: hops.forget(changed)) if change == "route" else (lambda: hops.discard(1)))

    assert cost(200) == cost(2)
