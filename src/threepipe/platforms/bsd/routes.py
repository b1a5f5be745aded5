"""Routes to an interface that the program wants, which come again after the system has taken them back."""

import errno
import ipaddress
from collections.abc import Iterable

from threepipe.errors import AdapterError
from threepipe.platforms.bsd.interface import Interfaces, Listing
from threepipe.platforms.bsd.kind import RTF_HOST, RTF_STATIC, Kind
from threepipe.platforms.bsd.messages import IpAddress, Route, address_of
from threepipe.settings import Address, Network

__all__ = ["Routes", "own_address"]

_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN})
"""Refusals of a route to an interface that is down, or that has no address of the route's version."""


def own_address(listing: Listing, index: int, version: int) -> IpAddress | None:
    """Return an address of the interface `index` of that version of IP, if it has one."""
    own = [address.ip for interface, address in listing.addresses if interface == index and address.version == version]
    return min(own, key=lambda ip: ip.is_link_local, default=None)  # The system may have added such an address.


class Routes:
    """The wanted routes to one interface, among them those to the networks of its addresses."""

    def __init__(self, interfaces: Interfaces, kind: Kind, index: int, present: Iterable[Network]) -> None:
        """`present` are routes that the interface has already."""
        self._interfaces = interfaces
        self._kind = kind
        self._index = index
        self._wanted = dict.fromkeys(present)

    def __contains__(self, network: Network) -> bool:
        """Return True if the route is wanted."""
        return network in self._wanted

    def waiting(self, listing: Listing, link_up: bool) -> list[Network]:
        """Return the wanted routes that come when the link does, or an address of their version."""
        present = {network for index, network in listing.routes if index == self._index}
        return [
            network
            for network in self._wanted
            if network not in present and (not link_up or own_address(listing, self._index, network.version) is None)
        ]

    def add(self, name: str, network: Network, link_up: bool) -> None:
        """Add a route, which may wait for the link. Raises `AdapterError`."""
        gateway = self._gateway(network)
        try:
            self._interfaces.add_route(name, self._index, network, gateway)
        except AdapterError as error:
            if error.errno in _UNREACHABLE and gateway is None:
                text = f"route {network}: {name} has no address of IPv{network.version}; give it one first"
                raise AdapterError(error.errno, text) from None
            if link_up or error.errno not in _UNREACHABLE:
                raise
        self._wanted[network] = None

    def remove(self, name: str, network: Network) -> None:
        """Remove a route; a missing one is not an error. Raises `AdapterError`."""
        self._interfaces.remove_route(name, self._index, network, self._gateway(network))
        self.forget(network)

    def forget(self, network: Network) -> None:
        """Stop wanting the route."""
        self._wanted.pop(network, None)

    def restore(self, name: str, link_up: bool) -> None:
        """Add the wanted routes that the system has taken back, if the interface has an address of their version."""
        listing = self._interfaces.listing()
        present = {network for index, network in listing.routes if index == self._index}
        for network in [network for network in self._wanted if network not in present]:
            if own_address(listing, self._index, network.version) is not None:
                self.add(name, network, link_up)

    def check(self, address: Address) -> None:
        """Raise `AdapterError` if the system has a route to the address that keeps it from getting the address."""
        if address.version == 6 or not self._kind.minds_host_routes:
            return
        listing = self._interfaces.listing()
        if any(own.ip == address.ip for _, own in listing.addresses):
            return  # The route belongs to that address.
        if any(_leads_to(route, address) for route in self._interfaces.routes()):
            text = f"address {address}: the system has a route to it; as root: route delete -host {address.ip}"
            raise AdapterError(errno.EEXIST, text)

    def withdraw(self, name: str, address: Address, unwanted: Network | None) -> None:
        """Remove an address, and before it the routes that lead by it, which could not do without.

        `unwanted` is the network of the address if no other address needs its route; the others can be restored.
        """
        for route in self._interfaces.routes():
            mine = route.index == self._index and route.flags & RTF_STATIC and route.network in self._wanted
            if mine and (route.network == unwanted or address_of(route.gateway, self._kind) == address.ip):
                self._interfaces.remove_route(name, self._index, route.network, address.ip)
        self._interfaces.remove_address(name, address)
        if unwanted is not None:
            self.forget(unwanted)
        # NetBSD forgets the route to the address itself if the route to its network was removed before.
        left = [route for route in self._interfaces.routes() if route.index == self._index]
        if address.version == 4 and any(_leads_to(route, address) for route in left):
            self._interfaces.remove_host_route(address.ip)

    def _gateway(self, network: Network) -> IpAddress | None:
        return own_address(self._interfaces.listing(), self._index, network.version)


def _leads_to(route: Route, address: Address) -> bool:
    """Return True if the route is to that address alone."""
    return bool(route.flags & RTF_HOST) and route.network == ipaddress.ip_network(address.ip)
