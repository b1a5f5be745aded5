"""Two tunnels and a network between them that is a list, with a clock of its own.

Each end has a wall clock too, which may be wrong, and may be suspended.
"""

import ipaddress
import itertools
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from threepipe.wireguard.constants import Timing
from threepipe.wireguard.next_hops import NextHopRouting
from threepipe.wireguard.noise import Identity
from threepipe.wireguard.peer import NEVER
from threepipe.wireguard.peer_endpoint import PeerEndpoint
from threepipe.wireguard.settings import Change, PeerChange, PeerStatus
from threepipe.wireguard.tunnel import Tunnel

_ports = itertools.count(1000)


INITIATION, RESPONSE, COOKIE, TRANSPORT = 1, 2, 3, 4
"""The types of messages."""


def new_key() -> bytes:
    return X25519PrivateKey.generate().private_bytes_raw()


def packet(source: str, destination: str, data: bytes = b"") -> bytes:
    """Return an IP packet of either family; no test here checks its checksum."""
    left, right = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if left.version == 4:
        return (
            bytes([0x45, 0])
            + (20 + len(data)).to_bytes(2, "big")
            + bytes([0, 0, 0, 0, 64, 253, 0, 0])
            + left.packed
            + right.packed
            + data
        )
    return bytes([0x60, 0, 0, 0]) + len(data).to_bytes(2, "big") + bytes([253, 64]) + left.packed + right.packed + data


class End:
    """A tunnel, and the packets that it has received."""

    def __init__(self, network: "Network", timing: Timing | None = None, routing: NextHopRouting | None = None) -> None:
        self.network = network
        self.key = new_key()
        self.public = Identity(self.key).public
        self.endpoint: PeerEndpoint = ("192.0.2.1", next(_ports))
        self.wall_error = 0.0
        """Seconds by which the wall clock is ahead."""
        self.suspended = False
        """True while it does nothing, and datagrams to it are lost."""
        self.packets: list[bytes] = []
        self._timing = timing
        self._routing = routing
        self._added: list[PeerChange] = []
        self.restart()
        network.ends.append(self)

    def restart(self) -> None:
        """Start anew, with the same key and peers."""
        self.tunnel = Tunnel(timing=self._timing, wall_clock=self.wall_clock, routing=self._routing)
        self.tunnel.configure(Change(self.key, peers=tuple(self._added)), self.network.now)

    def wall_clock(self) -> float:
        return 1.7e9 + self.network.now + self.wall_error

    def add(self, other: "End", *allowed: str, endpoint: bool = True, **more: object) -> None:
        networks = tuple(ipaddress.ip_network(text) for text in allowed)
        where = other.endpoint if endpoint else None
        change = PeerChange(other.public, endpoint=where, allowed_ips=networks, **more)  # type: ignore[arg-type]
        self._added.append(change)
        self.tunnel.configure(Change(peers=(change,)), self.network.now)

    def send(self, *packets: bytes) -> None:
        self.tunnel.send([memoryview(packet) for packet in packets], False, self.network.now)
        self.network.collect(self)

    def take(self, datagram: bytes, source: PeerEndpoint, ecn: int = 0) -> None:
        memory = memoryview(bytearray(datagram))
        self.packets += map(bytes, self.tunnel.receive(memory, len(memory), source, self.network.now, ecn=ecn))

    def peer(self, other: "End") -> PeerStatus:
        (status,) = (peer for peer in self.tunnel.status(self.network.now).peers if peer.public_key == other.public)
        return status


class Network:
    """A network that carries every datagram at once, unless `filter` rejects it; `log` has all datagrams."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ends: list[End] = []
        self.log: list[tuple[float, End, bytes]] = []
        self.filter: Callable[[bytes], bool] = lambda datagram: True
        self.remark: Callable[[int], int] = lambda ecn: ecn
        """Returns the ECN field with which a datagram of that field arrives."""
        self._queue: list[tuple[End, PeerEndpoint, bytes, int]] = []

    def collect(self, sender: End) -> None:
        """Queue the datagrams that a tunnel has to send."""
        for outgoing in sender.tunnel.datagrams_to_send():
            for memory, size, ecn in outgoing.runs:
                for start in range(0, len(memory), size):
                    self._queue.append((sender, outgoing.endpoint, bytes(memory[start : start + size]), ecn))

    def hold(self) -> list[bytes]:
        """Hold back all datagrams from now on; return the list that collects them."""
        held: list[bytes] = []

        def keep(datagram: bytes) -> bool:
            held.append(datagram)
            return False

        self.filter = keep
        return held

    def settle(self) -> None:
        """Carry all datagrams, and those sent in answer to them."""
        while True:
            for end in self.ends:
                self.collect(end)
            if not self._queue:
                return
            sender, target, datagram, ecn = self._queue.pop(0)
            self.log.append((self.now, sender, datagram))
            if self.filter(datagram):
                for end in self.ends:
                    if end.endpoint == target and not end.suspended:
                        end.take(datagram, sender.endpoint, self.remark(ecn))

    def advance(self, seconds: float) -> None:
        """Advance the clock, and handle all timers due meanwhile."""
        until = self.now + seconds
        self.settle()
        while (due := min(end.tunnel.timer for end in self._awake())) <= until:
            assert due != NEVER
            self.now = max(self.now, due)
            for end in self._awake():
                end.tunnel.handle_timers(self.now)
            self.settle()
        self.now = until

    def _awake(self) -> list[End]:
        return [end for end in self.ends if not end.suspended]

    def kinds(self, sender: End | None = None, since: float = 0) -> list[int]:
        """Return the types of the messages sent."""
        return [datagram[0] for at, end, datagram in self.log if at >= since and sender in (None, end)]


def joined(
    timing: Timing | None = None, *, preshared_key: bytes | None = None, persistent_keepalive: int | None = None
) -> tuple[Network, End, End]:
    """Return two ends; only the first knows the endpoint of the other."""
    network = Network()
    left, right = End(network, timing), End(network, timing)
    keepalive = persistent_keepalive
    left.add(right, "10.0.0.2/32", "fd00::2/128", preshared_key=preshared_key, persistent_keepalive=keepalive)
    right.add(left, "10.0.0.1/32", "fd00::1/128", endpoint=False, preshared_key=preshared_key)
    return network, left, right


THERE = packet("10.0.0.1", "10.0.0.2", b"there")
BACK = packet("10.0.0.2", "10.0.0.1", b"back")
THERE6 = packet("fd00::1", "fd00::2", b"there")
