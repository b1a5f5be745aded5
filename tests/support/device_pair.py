"""Two WireGuard devices in one process, joined by sockets on loopback."""

import threading

from tests.support.wireguard_pair import new_key, packet
from threepipe import wireguard
from threepipe.wireguard import Change, Device, PeerChange, parse_networks
from threepipe.wireguard.noise import Identity

__all__ = ["BACK", "SECONDS", "THERE", "Pair", "received"]

SECONDS = 20.0
THERE, BACK = packet("10.0.0.1", "10.0.0.2", b"there"), packet("10.0.0.2", "10.0.0.1", b"back")


class Pair:
    def __init__(self, host: str) -> None:
        keys = new_key(), new_key()
        self.public = [Identity(key).public for key in keys]
        self.events: list[wireguard.Event] = []
        self.happened = threading.Event()
        self.right = Device(private_key=keys[1], on_event=self.note)
        endpoint = (host, self.right.status().listen_port)
        there = PeerChange(self.public[1], endpoint=endpoint, allowed_ips=parse_networks(["10.0.0.2", "fd00::2"]))
        self.left = Device(private_key=keys[0], peers=[there], mtu=1420)
        back = parse_networks(["10.0.0.1", "fd00::1"])
        self.right.configure(Change(peers=(PeerChange(self.public[0], allowed_ips=back),)))

    def note(self, event: wireguard.Event) -> None:
        self.events.append(event)
        self.happened.set()

    def close(self) -> None:
        self.left.close()
        self.right.close()


def received(device: Device, count: int) -> list[bytes]:
    packets: list[bytes] = []
    while len(packets) < count:
        with device.session.receive(SECONDS) as bundle:
            assert bundle, f"{len(packets)} of {count} packets came; dropped: {device.rejected}"
            packets += map(bytes, bundle)
    return packets
