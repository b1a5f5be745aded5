"""Routing: has the native core's router know what a tunnel knows, and takes what the router's loop hands up.

Between `tunnel`, which decides, and `port`, which does the I/O of what is decided. Where there is no native router,
nobody needs this.
"""

import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from errno import errorcode
from typing import TYPE_CHECKING, Self

from threepipe.core import fast
from threepipe.core.transport import Transport
from threepipe.wireguard.peer import NEVER, Keypair, Peer
from threepipe.wireguard.settings import Endpoint
from threepipe.wireguard.tunnel import Tunnel

if TYPE_CHECKING:
    from threepipe_native import Router

__all__ = ["Handler", "Routing", "endpoint_at", "place_of"]

Place = tuple[bytes, int, int]
"""An address of 4 or 16 bytes, a port, and the scope of a link-local address."""

_REASONS = {"forged": "not authentic, or not new", "source": "source is not among the peer's allowed IPs"}


def place_of(endpoint: Endpoint | None) -> Place | None:
    """Where `endpoint` is; None where it is nowhere."""
    if endpoint is None:
        return None
    try:
        family, _, _, _, address = socket.getaddrinfo(*endpoint, 0, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)[0]
    except OSError:
        return None
    host, scope = str(address[0]).partition("%")[0], address[3] if len(address) == 4 else 0
    return socket.inet_pton(family, host), int(address[1]), int(scope)


def endpoint_at(place: Place) -> Endpoint:
    """The same as endpoints are written."""
    address, port, scope = place
    host = socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
    return f"{host}%{scope}" if scope else host, port


class Routing:
    """Of one tunnel; to be called as the tunnel is, with its lock held."""

    def __init__(self, tunnel: Tunnel, router: "Router") -> None:
        self.router = router
        self._tunnel = tunnel

    @classmethod
    def of(cls, tunnel: Tunnel) -> Self | None:
        """None where there is no router."""
        if not fast.NATIVE:
            return None
        try:
            from threepipe_native import Router
        except ImportError:
            return None  # The core has one on Linux only.
        return cls(tunnel, Router())

    def update(self, origins: Mapping[Endpoint, bytes]) -> None:
        """Tell the router what has changed. `origins`: from which address here an endpoint is answered."""
        changed, self._tunnel.changed = self._tunnel.changed, set()
        for peer in changed:
            number, networks = peer.number, self._tunnel.networks(peer)
            self.router.set_allowed(
                number, [(network.network_address.packed, network.prefixlen) for network in networks]
            )
            keypairs = [keypair for keypair in (peer.current, peer.previous) if keypair is not None]
            if not keypairs:
                self.router.remove_peer(number)  # What is for it goes up, as it has to be.
                continue
            self.router.set_peer(
                number,
                peer.traffic,
                place_of(peer.endpoint),
                None if peer.endpoint is None else origins.get(peer.endpoint),
                None if peer.current is None else self._sending(peer.current),
                [self._receiving(keypair, peer) for keypair in keypairs],
            )

    def _sending(self, keypair: Keypair) -> tuple[Transport, float, float]:
        timing = self._tunnel.timing
        return keypair.transport, keypair.created + timing.reject_after, keypair.renew_at(timing)

    def _receiving(self, keypair: Keypair, peer: Peer) -> tuple[Transport, float, float]:
        timing = self._tunnel.timing
        near_end = keypair.near_end(timing) if keypair is peer.current else NEVER
        return keypair.transport, keypair.created + timing.reject_after, near_end

    def rejected(self) -> Counter[str]:
        """What the loop dropped, by reason."""
        counts = Counter[str]()
        for reason, number, count in self.router.rejected():
            counts[_REASONS.get(reason) or f"{reason}: {errorcode.get(number, number)}"] += count
        return counts


class Handler:
    """What the native loop calls, from threads of its own, where the router cannot decide.

    `send(records, vnet_header)` takes records that have no peer, or none that can be sent to yet.
    """

    def __init__(
        self,
        send: Callable[[Sequence[memoryview], bool], None],
        receive: Callable[[memoryview, int, Endpoint, bytes | None], Sequence[memoryview]],
        attend: Callable[[int, bool], float],
    ) -> None:
        self._send, self._receive = send, receive
        self.attend = attend
        """Do what is due for a peer, by its number, as messages are sent to it (True) or received; return when to
        call again."""

    def send(self, records: Sequence[bytearray], vnet_header: bool) -> None:
        """Take records, with a virtio header if `vnet_header`, that have no peer or none that can be sent to yet."""
        self._send([memoryview(record) for record in records], vnet_header)

    def receive(self, datagrams: bytearray, size: int, place: Place, local: bytes | None) -> Sequence[memoryview]:
        """Take datagrams from one source, each of `size` bytes but the last, and return the packets in them."""
        return self._receive(memoryview(datagrams), size, endpoint_at(place), local)
