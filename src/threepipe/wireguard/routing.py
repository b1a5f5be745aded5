"""Routing: keeps the native core's router in step with a tunnel, and handles the datagrams that the router passes up.

Lies between `tunnel`, which decides, and `port`, which does the I/O. Pure Python has no router and needs none of this.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from errno import errorcode
from typing import TYPE_CHECKING, Self

from threepipe.core import fast
from threepipe.settings import Network
from threepipe.wireguard import clock
from threepipe.wireguard.peer_endpoint import NativeEndpoint, from_native, to_native
from threepipe.wireguard.tunnel import Outgoing, Route, Tunnel

if TYPE_CHECKING:
    from threepipe._native import Router

__all__ = ["Handler", "Routing"]

_REASONS = {
    "forged": "not authentic, or not new",
    "source": "source is not among the peer's allowed IPs",
    "congested": "marked for congestion, but not ECN-capable",
}


class Routing:
    """The router of one tunnel."""

    def __init__(self, tunnel: Tunnel, router: "Router") -> None:
        self.router = router
        self._tunnel = tunnel
        self._lock = threading.Lock()  # Keeps changes in order.
        tunnel.track_changes()

    @classmethod
    def of(cls, tunnel: Tunnel) -> Self | None:
        """Return the routing of the tunnel; None if there is no native router."""
        if not fast.NATIVE:
            return None
        try:
            from threepipe._native import Router
        except ImportError:
            return None  # The core has one on Linux only.
        return cls(tunnel, Router(tunnel.routes_by_next_hops))

    def update(self) -> None:
        """Tell the router which routes have changed."""
        with self._lock:
            for route in self._tunnel.changed_routes():
                self._set(route)
            changed, learned = self._tunnel.changed_next_hops()
            if changed or learned:
                self.router.set_next_hops(_pairs(changed), learned)

    def _set(self, route: Route) -> None:
        self.router.set_allowed(route.number, _pairs(route.networks), route.link_local)
        if not route.receiving:
            self.router.remove_peer(route.number)
            return
        endpoint = None if route.endpoint is None else to_native(route.endpoint)
        self.router.set_peer(route.number, route.traffic, endpoint, route.local, route.sending, route.receiving)

    def rejected(self) -> Counter[str]:
        """Return how many datagrams and packets the router dropped, by reason."""
        counts = Counter[str]()
        for reason, number, count in self.router.rejected():
            counts[_REASONS.get(reason) or f"{reason}: {errorcode.get(number, number)}"] += count
        return counts


def _pairs(networks: Sequence[Network]) -> list[tuple[bytes, int]]:
    return [(network.network_address.packed, network.prefixlen) for network in networks]


class Handler:
    """The methods that the native loop calls, from threads of its own, if the router cannot decide alone."""

    def __init__(self, tunnel: Tunnel, flush: Callable[[], None], keep: Callable[[Outgoing], None]) -> None:
        """`flush` sends the datagrams that the tunnel has ready; `keep` sends some before these, once there is room."""
        self._tunnel, self._flush, self._keep = tunnel, flush, keep

    def send(self, records: Sequence[bytearray], vnet_header: bool) -> None:
        """Send records that have no peer, or whose peer has no keypair yet."""
        self._tunnel.send([memoryview(record) for record in records], vnet_header, clock.now())
        self._flush()

    def keep(self, messages: bytearray, size: int, endpoint: NativeEndpoint, local: bytes | None, ecn: int) -> None:
        """Keep sealed messages, each of `size` bytes but a shorter last one, for which there was no room yet."""
        self._keep(Outgoing(from_native(endpoint), local, [(memoryview(messages), size, ecn)]))

    def receive(
        self, datagrams: bytearray, size: int, source: NativeEndpoint, local: bytes | None, ecn: int
    ) -> Sequence[memoryview]:
        """Receive datagrams of one source, each of `size` bytes but a shorter last one; return the packets in them."""
        memory, endpoint = memoryview(datagrams), from_native(source)
        packets = self._tunnel.receive(memory, size, endpoint, clock.now(), local, ecn)
        self._flush()
        return packets

    def attend(self, number: int, sending: bool) -> float:
        """Look after the peer with that number, which is sent to or received from. Return when to call again."""
        again_at = self._tunnel.attend(number, clock.now(), sending=sending)
        self._flush()
        return again_at
