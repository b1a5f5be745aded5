"""A device that routes by next hops: its packets, its routes and its address."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from ipaddress import IPv6Address

import pytest

from tests.support.device_pair import SECONDS, received
from tests.support.mesh import TableOfRoutes
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key, packet
from threepipe import MemoryAdapter, pipe
from threepipe.errors import EndpointError
from threepipe.session import Session
from threepipe.settings import Network
from threepipe.wireguard import Change, Device, NextHopRouting, PeerChange, link_local, public_key

MESH = ["fd12:3456:789a::/48"]
OWN, REMOTE, GROUP = "fd12:3456:789a:1::1", "fd12:3456:789a:9::1", "ff02::1:6"


class Node:
    """A device piped to an adapter; `far` takes the place of the system."""

    def __init__(self, stack: ExitStack) -> None:
        self.routes = TableOfRoutes()
        self.device = stack.enter_context(
            Device(private_key=new_key(), mtu=1420, routing=NextHopRouting(MESH, self.routes))
        )
        self.key = self.device.status().public_key
        near, far = MemoryAdapter.pair(mtu=1420)
        self.far: Session = stack.enter_context(far.start_session())
        session = stack.enter_context(near.start_session())
        thread = threading.Thread(target=pipe, args=(session, self.device.session))
        stack.callback(thread.join, SECONDS)
        stack.callback(self.device.close)
        thread.start()

    def neighbour(self, stack: ExitStack) -> Device:
        """Return a device that is a peer, and whose routes lead to this one."""
        routes = TableOfRoutes()
        routes.set("::/0", self.key)
        device = stack.enter_context(Device(private_key=new_key(), routing=NextHopRouting(MESH, routes)))
        device.configure(Change(peers=[PeerChange(self.key)]))
        endpoint = ("127.0.0.1", device.status().listen_port)
        self.device.configure(Change(peers=[PeerChange(device.status().public_key, endpoint=endpoint)]))
        return device


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_packets_follow_the_routes_and_those_to_a_group_reach_all(stack: ExitStack) -> None:
    node = Node(stack)
    left, right = node.neighbour(stack), node.neighbour(stack)
    node.routes.set(f"{REMOTE}/128", left.status().public_key)
    hello, data = packet(str(link_local(node.key)), GROUP, b"hello"), packet(OWN, REMOTE, b"data")
    node.far.send([hello])
    assert [received(each, 1) for each in (left, right)] == [[hello], [hello]]
    node.far.send([data])
    assert received(left, 1) == [data]
    node.routes.set(f"{REMOTE}/128", right.status().public_key)

    def arrives() -> bool:
        node.far.send([data])
        return bool(right.session.receive(0.2))

    assert come_true(arrives, SECONDS)
    back = packet(REMOTE, OWN, b"back")
    right.session.send([back])
    assert [bytes(each) for each in node.far.receive(SECONDS)] == [back]


def test_the_interface_has_the_address_of_the_key_and_none_without_a_key() -> None:
    routes, key = TableOfRoutes(), new_key()
    with Device(private_key=key, routing=NextHopRouting(MESH, routes)) as device:
        device.configure(Change(private_key=key, listen_port=0))
        other = new_key()
        device.configure(Change(private_key=other))
        device.configure(Change(private_key=bytes(32)))
    assert routes.own == [link_local(public_key(key)), link_local(public_key(other)), None]


class Refusing(TableOfRoutes):
    """Refuses addresses, and tells no changes."""

    closed = False

    def use_address(self, address: IPv6Address | None) -> None:
        raise EndpointError(1, "not permitted")

    def changes(self) -> Sequence[Network] | None:
        raise EndpointError(5, "cannot be read")

    def close(self) -> None:
        self.closed = True


def test_an_address_that_the_system_refuses_leaves_the_key_as_it_is_and_closes_routes_of_a_new_device() -> None:
    routes = Refusing()
    with pytest.raises(EndpointError, match="not permitted"):
        Device(private_key=new_key(), routing=NextHopRouting(MESH, routes))
    assert routes.closed
    with Device(routing=NextHopRouting(MESH, Refusing())) as device:
        with pytest.raises(EndpointError, match="not permitted"):
            device.configure(Change(private_key=new_key()))
        assert not any(device.status().private_key)


def test_an_error_of_the_routes_reaches_the_users_of_the_session() -> None:
    with Device(routing=NextHopRouting(MESH, Refusing())) as device, pytest.raises(EndpointError, match="be read"):
        device.session.receive(SECONDS)
