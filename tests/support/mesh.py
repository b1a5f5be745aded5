"""Routes that a test sets, for devices that route by next hops."""

import ipaddress
import queue
from collections.abc import Sequence
from ipaddress import IPv6Address

from threepipe.settings import Network
from threepipe.wireguard import link_local

__all__ = ["TableOfRoutes"]


class TableOfRoutes:
    """Routes by destination; `set` changes them as a routing daemon does."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        """The destinations and sources of all look-ups."""
        self.own: list[IPv6Address | None] = []
        """The addresses that the interface was given."""
        self._routes: dict[Network, bytes] = {}
        self._changes: queue.SimpleQueue[Sequence[Network] | None] = queue.SimpleQueue()

    def set(self, network: str, public_key: bytes | None) -> None:
        """Make the peer with that key the next hop; None removes the route."""
        parsed = ipaddress.ip_network(network)
        self._routes.pop(parsed, None)
        if public_key is not None:
            self._routes[parsed] = link_local(public_key).packed
        self._changes.put([parsed])

    def next_hop(self, destination: bytes, source: bytes) -> bytes | None:
        address = ipaddress.ip_address(destination)
        self.asked.append((str(address), str(ipaddress.ip_address(source)) if source else ""))
        found = [network for network in self._routes if address in network]
        return self._routes[max(found, key=lambda network: network.prefixlen)] if found else None

    def changes(self) -> Sequence[Network] | None:
        return self._changes.get()

    def use_address(self, address: IPv6Address | None) -> None:
        self.own.append(address)

    def close(self) -> None:
        self._changes.put(None)
