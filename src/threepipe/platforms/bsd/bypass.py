"""Routes past a tunnel that carries all traffic, one for each of its endpoints.

These systems do not route by marks, so a host route leads to each endpoint, by the gateway that it would have without
the tunnel. Routes follow changes of the network and of the endpoints. Without a gateway a route drops the packets, else
they would go round in the tunnel. Behaves as wg-quick does there.
"""

import sys

assert sys.platform != "win32"

import ipaddress
import logging
from collections.abc import Callable, Collection, Iterable
from types import TracebackType
from typing import Self

from threepipe.errors import AdapterError
from threepipe.platforms.bsd.changes import Changes
from threepipe.platforms.bsd.device import Place
from threepipe.platforms.bsd.kind import RTF_BLACKHOLE, RTF_GATEWAY, RTF_REJECT, RTF_STATIC, RTF_UP
from threepipe.platforms.bsd.messages import IpAddress, Route, sockaddr

__all__ = ["Bypass", "path_mtu_on", "remove_on"]

_log = logging.getLogger("threepipe")

_LOOPBACK: dict[int, IpAddress] = {4: ipaddress.IPv4Address("127.0.0.1"), 6: ipaddress.IPv6Address("::1")}
_USUAL_MTU = 1500


class Bypass:
    """The host routes of the endpoints of one tunnel, a context manager. At its end they stay, for `remove_on`."""

    def __init__(
        self, place: Place, index: int, versions: Collection[int], before: Callable[[list[str]], object]
    ) -> None:
        """`index` is that of the tunnel's interface, and `versions` are those of IP whose packets all go there.

        `before` is called with addresses before they get routes. Raises `OSError`.
        """
        self._place = place
        self._index = index
        self._versions = versions
        self._before = before
        self._told: set[IpAddress] = set()
        self._endpoints: frozenset[IpAddress] | None = None
        self._routes: dict[IpAddress, tuple[bytes, int]] = {}
        """Gateway and flags of each route."""
        self._changes = Changes(place.system, place.driver.kind)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._changes.close()

    def update(self, endpoints: Iterable[str]) -> None:
        """Have routes to these addresses, if they or the network have changed. Raises `AdapterError`."""
        wanted = frozenset(ipaddress.ip_address(each.partition("%")[0]) for each in endpoints)
        if not self._changes.happened() and wanted == self._endpoints:
            return
        table = self._place.interfaces.routes()
        ways = {address: way for address in wanted if (way := self._way(table, address)) is not None}
        for address in [each for each, way in self._routes.items() if ways.get(each) != way]:
            del self._routes[address]
            self._place.interfaces.remove_host_route(address)
        for address, way in ways.items():
            if address not in self._routes:
                self._add(address, way)
        self._endpoints = wanted

    def _add(self, address: IpAddress, way: tuple[bytes, int]) -> None:
        if address not in self._told:
            self._before([str(address)])
            self._told.add(address)
        try:
            self._place.interfaces.add_host_route(address, *way)
        except AdapterError as error:
            _log.warning(f"{error}; packets to this endpoint may go round in the tunnel until the network changes")
        else:
            self._routes[address] = way

    def _way(self, table: list[Route], address: IpAddress) -> tuple[bytes, int] | None:
        """Return gateway and flags of the route that the endpoint needs; None if the tunnel has no route to it."""
        if address.version not in self._versions or address.is_loopback or address.is_link_local:
            return None
        leads = [route for route in table if self._counts(route) and address in route.network]
        best = max(leads, key=_length, default=None)
        if best is None or best.index != self._index:
            return None
        best = max((route for route in leads if route.index != self._index), key=_length, default=None)
        if best is None:
            return sockaddr(self._place.driver.kind, _LOOPBACK[address.version]), RTF_GATEWAY | RTF_BLACKHOLE
        return best.gateway, best.flags & RTF_GATEWAY

    def _counts(self, route: Route) -> bool:
        """Return False for routes of this object, and those that the system makes for single machines and sockets."""
        is_host = route.network.prefixlen == route.network.max_prefixlen
        if is_host and (route.network.network_address in self._routes or not route.flags & RTF_STATIC):
            return False
        return _is_usable(route, self._place.driver.kind.scoped)


def _length(route: Route) -> tuple[int, bool]:
    """Return a key by which the best route is the largest."""
    return route.network.prefixlen, bool(route.flags & RTF_GATEWAY)


def _is_usable(route: Route, scoped: int) -> bool:
    return route.flags & (RTF_UP | RTF_REJECT | RTF_BLACKHOLE | scoped) == RTF_UP


def remove_on(place: Place, addresses: Iterable[str]) -> None:
    """Remove the host routes to these addresses; missing ones are not an error. Raises `AdapterError`."""
    for address in addresses:
        place.interfaces.remove_host_route(ipaddress.ip_address(address))


def path_mtu_on(place: Place, address: str) -> int:
    """Return the MTU of the interface by which packets to `address` leave, or less if adapters cannot have it.

    Return 1500 without a route.
    """
    target = ipaddress.ip_address(address.partition("%")[0])
    usable = [route for route in place.interfaces.routes() if _is_usable(route, place.driver.kind.scoped)]
    best = max((route for route in usable if target in route.network), key=_length, default=None)
    links = {link.index: link.mtu for link in place.interfaces.listing().links}
    return min(links.get(best.index, _USUAL_MTU) if best else _USUAL_MTU, place.driver.kind.largest_mtu)
