"""An adapter joined with one of our devices, and a peer that answers pings at 10.6.7.2 in the tunnel."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import threepipe
from tests.support.kernel import Network
from tests.support.wireguard_pair import new_key
from threepipe import Adapter, Session
from threepipe.echo import echo_reply
from threepipe.wireguard import Change, Device, PeerChange, parse_networks
from threepipe.wireguard.noise import Identity

__all__ = ["TARGET", "answering_peer"]

TARGET = "10.6.7.2"


@contextmanager
def answering_peer(network: Network) -> Iterator[tuple[Adapter, Session, Device, Device]]:
    """Yield the adapter in `network`, its session, its device and the peer's, while packets pass between them."""
    keys = new_key(), new_key()
    public = [Identity(key).public for key in keys]
    with (
        Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"]) as adapter,
        adapter.start_session() as session,
        Device(private_key=keys[1]) as peer,
        Device(private_key=keys[0]) as device,
    ):
        endpoint = ("127.0.0.1", peer.status().listen_port)
        there = PeerChange(public[1], endpoint=endpoint, allowed_ips=parse_networks([TARGET]))
        device.configure(Change(peers=(there,)))
        peer.configure(Change(peers=(PeerChange(public[0], allowed_ips=parse_networks(["10.6.7.1"])),)))

        def answer() -> None:
            for bundle in peer.session:
                peer.session.send([reply for packet in bundle if (reply := echo_reply(packet))])

        threads = [
            threading.Thread(target=threepipe.pipe, args=(session, device.session)),
            threading.Thread(target=answer),
        ]
        for thread in threads:
            thread.start()
        try:
            yield adapter, session, device, peer
        finally:
            session.close()
            peer.close()
            for thread in threads:
                thread.join()
