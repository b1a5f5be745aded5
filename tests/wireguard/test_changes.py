"""Changes of a tunnel's settings while it runs."""

import ipaddress

from tests.support.wireguard_pair import BACK, INITIATION, THERE, TRANSPORT, End, Network, joined, new_key
from threepipe.wireguard.settings import Change, PeerChange


def test_peers_can_be_changed_and_removed_while_running() -> None:
    network, left, right = joined()
    left.send(THERE)
    network.settle()
    left.tunnel.configure(Change(peers=(PeerChange(right.public, replace_allowed_ips=True),)), network.now)
    left.send(THERE)
    assert left.tunnel.rejected["no peer for the destination"] == 1
    left.add(right, "10.0.0.2/32")
    left.send(THERE)
    network.settle()
    assert len(right.packets) == 2
    removed = (ipaddress.ip_network("10.0.0.2/32"),)
    left.tunnel.configure(Change(peers=(PeerChange(right.public, removed_ips=removed),)), network.now)
    assert left.peer(right).allowed_ips == ()
    right.tunnel.configure(Change(peers=(PeerChange(left.public, remove=True),)), network.now)
    right.tunnel.configure(Change(peers=(PeerChange(left.public, remove=True),)), network.now)
    assert right.tunnel.status(right.network.now).peers == ()
    assert right.tunnel._peers.indices == {}
    left.add(right, "10.0.0.2/32")
    left.send(THERE)
    network.advance(200)
    assert len(right.packets) == 2
    left.tunnel.configure(Change(replace_peers=True, peers=(PeerChange(new_key(), update_only=True),)), network.now)
    assert left.tunnel.status(left.network.now).peers == ()
    network.advance(1000)
    assert left.tunnel._peers.indices == {}


def test_replacing_the_peers_resets_what_the_change_leaves_out_and_keeps_sessions() -> None:
    preshared = new_key()
    network, left, right = joined(preshared_key=preshared, persistent_keepalive=25)
    left.send(THERE)
    network.settle()
    kept = PeerChange(right.public, allowed_ips=(ipaddress.ip_network("10.0.0.2/32"),))
    left.tunnel.configure(Change(replace_peers=True, peers=(kept,)), network.now)
    status = left.peer(right)
    assert (status.endpoint, status.persistent_keepalive, any(status.preshared_key)) == (None, 0, False)
    assert status.allowed_ips == kept.allowed_ips
    left.send(THERE)
    assert left.tunnel.rejected["no endpoint"] == 1
    since = network.now = network.now + 1
    right.send(BACK)  # The session goes on, and shows the endpoint.
    network.settle()
    left.send(THERE)
    network.settle()
    assert (left.packets, right.packets) == ([BACK], [THERE, THERE])
    assert set(network.kinds(since=since)) == {4}
    network.advance(200)  # The next handshake needs the key that the change left out.
    right.send(BACK)
    network.advance(1)
    assert left.packets == [BACK]


def test_replacing_the_peers_keeps_what_the_change_repeats() -> None:
    network, left, right = joined(persistent_keepalive=25)
    left.send(THERE)
    network.settle()
    before, since = left.peer(right), network.now + 1
    network.now = since
    again = PeerChange(
        right.public,
        preshared_key=before.preshared_key,
        endpoint=before.endpoint,
        persistent_keepalive=25,
        allowed_ips=before.allowed_ips,
    )
    left.tunnel.configure(Change(replace_peers=True, peers=(again,)), network.now)
    network.settle()
    assert left.peer(right).endpoint == before.endpoint
    assert network.kinds(since=since) == []
    assert left.peer(right).persistent_keepalive == 25
    assert left.peer(right).allowed_ips == before.allowed_ips


def test_replacing_the_peers_removes_one_that_was_only_to_be_updated() -> None:
    network, left, right = joined()
    update = PeerChange(right.public, update_only=True, persistent_keepalive=25)
    left.tunnel.configure(Change(replace_peers=True, peers=(update,)), network.now)
    assert left.tunnel.status(network.now).peers == ()


def test_a_device_cannot_be_a_peer_of_itself() -> None:
    network = Network()
    end = End(network)
    end.add(end, "10.0.0.0/8")
    assert end.tunnel.status(end.network.now).peers == ()
    other = End(network)
    end.add(other)
    end.tunnel.configure(Change(other.key), network.now)
    assert end.tunnel.status(end.network.now).peers == ()


def test_a_tunnel_without_a_private_key_sends_nothing() -> None:
    network, left, right = joined(persistent_keepalive=25)
    network.settle()
    left.tunnel.configure(Change(bytes(32)), network.now)
    left.send(THERE)
    right.send(BACK)
    network.advance(30)
    assert network.kinds(left) == [INITIATION, TRANSPORT]
    assert left.tunnel.status(left.network.now).public_key == bytes(32)
    left.take(network.log[0][2], right.endpoint)
    assert left.tunnel.rejected["no private key"] >= 1


def test_a_peer_with_an_invalid_public_key_is_kept_and_gets_nothing() -> None:
    network = Network()
    end = End(network)
    everything = (ipaddress.ip_network("10.0.0.0/8"),)
    nobody = PeerChange(bytes(32), endpoint=("192.0.2.9", 9), allowed_ips=everything)
    end.tunnel.configure(Change(peers=(nobody,)), network.now)
    end.send(THERE)
    network.advance(100)
    assert network.log == []


def test_a_new_private_key_restarts_the_handshake_attempts() -> None:
    network, left, _right = joined()
    network.filter = lambda datagram: False
    left.send(THERE)
    network.advance(80)
    left.tunnel.configure(Change(bytes(32)), network.now)
    network.advance(20)
    left.tunnel.configure(Change(left.key), network.now)
    left.send(THERE)
    network.advance(6)
    assert len([at for at, _, datagram in network.log if at >= 1100]) == 2
