"""Devices that route by next hops in the native core's loop, and in pure Python's."""

import sys
import threading
from contextlib import ExitStack, suppress

import pytest

if sys.platform != "linux":
    pytest.skip("no other platform lends descriptors", allow_module_level=True)

import threepipe
from tests.support.mesh import TableOfRoutes
from tests.support.piped_devices import SECONDS, Adapter
from tests.support.waiting import come_true
from tests.support.wireguard_pair import new_key, packet
from threepipe.platforms.linux.tun import Offload
from threepipe.wireguard import Change, Device, NextHopRouting, PeerChange, link_local

MESH = ["fd12:3456:789a::/48", "10.42.0.0/16"]
OWN, REMOTE = ("10.42.0.1", "fd12:3456:789a:1::1"), ("10.42.9.1", "fd12:3456:789a:9::1")


class Node:
    """A device piped to an adapter that lends its descriptor."""

    def __init__(self, stack: ExitStack, offload: Offload) -> None:
        self.routes = TableOfRoutes()
        self.adapter = Adapter(offload)
        stack.callback(self.adapter.close)
        self.device = stack.enter_context(
            Device(private_key=new_key(), mtu=1420, routing=NextHopRouting(MESH, self.routes))
        )
        self.key = self.device.status().public_key
        self.link_local = str(link_local(self.key))
        thread = threading.Thread(target=self._run)
        stack.callback(thread.join, SECONDS)
        stack.callback(self.device.close)
        thread.start()

    def _run(self) -> None:
        with suppress(threepipe.SessionClosed):
            threepipe.pipe(self.adapter.session, self.device.session)

    def know(self, other: "Node", **settings: object) -> None:
        endpoint = ("127.0.0.1", other.device.status().listen_port)
        self.device.configure(Change(peers=[PeerChange(other.key, endpoint=endpoint, **settings)]))  # type: ignore[arg-type]


@pytest.mark.parametrize("offload", [Offload.NONE, Offload.TCP_AND_UDP])
@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_packets_follow_the_routes_between_three_nodes(offload: Offload, version: int) -> None:
    source, destination = OWN[version], REMOTE[version]
    with ExitStack() as stack:
        node, left, right = nodes = [Node(stack, offload) for _ in range(3)]
        for each in nodes:
            for other in nodes:
                if other is not each:
                    each.know(other)
        hello = packet(node.link_local, "ff02::1:6", b"hello")
        node.adapter.send(hello)
        assert left.adapter.receive(1) == right.adapter.receive(1) == [hello]
        node.routes.set(destination, left.key)
        sent = [packet(source, destination, bytes([number]) * 100) for number in range(50)]
        for _ in range(2):
            node.adapter.send(*sent)
            assert left.adapter.receive(50) == sent
        assert len(node.routes.asked) <= 2, "a result is kept until routes change"
        node.routes.set(destination, right.key)
        right.adapter.far.settimeout(0.1)

        def arrives() -> bool:
            node.adapter.send(sent[0])
            with suppress(TimeoutError):
                return right.adapter.receive(1) == sent[:1]
            return False

        assert come_true(arrives, SECONDS)
        assert not node.device.rejected


def test_sources_that_a_peer_may_not_use_are_dropped() -> None:
    with ExitStack() as stack:
        node, peer = Node(stack, Offload.NONE), Node(stack, Offload.NONE)
        peer.know(node)
        node.know(peer, allowed_ips=["fd12:3456:789a:9::/64"])
        for network in ("::/0", "0.0.0.0/0"):
            peer.routes.set(network, node.key)
        good = [packet(source, OWN[1]) for source in (REMOTE[1], peer.link_local)]
        bad = [packet(source, OWN[1]) for source in ("fd12:3456:789a:8::1", node.link_local)]
        peer.adapter.send(*good)
        assert node.adapter.receive(2) == good
        peer.adapter.send(*bad, packet(REMOTE[0], OWN[0]), *good)
        assert node.adapter.receive(2) == good
        assert node.device.rejected == {"source is not among the peer's allowed IPs": 3}
        node.device.configure(Change(peers=[PeerChange(peer.key, replace_allowed_ips=True)]))
        peer.adapter.send(bad[0], packet(REMOTE[0], OWN[0]))
        assert node.adapter.receive(2) == [bad[0], packet(REMOTE[0], OWN[0])]


def test_a_removed_peer_is_a_next_hop_no_more() -> None:
    with ExitStack() as stack:
        node, peer = Node(stack, Offload.NONE), Node(stack, Offload.NONE)
        peer.know(node)
        node.know(peer)
        node.routes.set(REMOTE[1], peer.key)
        sent = packet(OWN[1], REMOTE[1])
        node.adapter.send(sent)
        assert peer.adapter.receive(1) == [sent]
        node.device.configure(Change(peers=[PeerChange(peer.key, remove=True)]))
        node.adapter.send(sent)
        assert come_true(lambda: node.device.rejected == {"no peer for the destination": 1}, SECONDS)
