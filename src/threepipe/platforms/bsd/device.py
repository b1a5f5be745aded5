"""Adapters on macOS and the BSDs: an open TUN device, and its interface with addresses and routes.

A link is up while its interface is. Two habits of these systems are undone here: an interface comes up when it gets an
address, and may lose its routes when it goes down or when it loses an address.
"""

import sys

assert sys.platform != "win32"

import errno
import logging
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, NoReturn

from threepipe.backend import AdapterInfo, AdapterStatistics
from threepipe.errors import AdapterError, AdapterGone, AdapterUnavailable, InvalidSetting, IPv6Unavailable
from threepipe.net.forks import call_in_child
from threepipe.platforms.bsd.driver import Driver, Opened, not_found, own_name
from threepipe.platforms.bsd.interface import Interfaces, Listing, explained
from threepipe.platforms.bsd.kind import IFF_UP, Kind
from threepipe.platforms.bsd.leftovers import Mark, leftovers
from threepipe.platforms.bsd.messages import Link
from threepipe.platforms.bsd.offload import OffloadPort
from threepipe.platforms.bsd.port import FAMILY_SIZE, Attachment, BsdPort, discard
from threepipe.platforms.bsd.routes import Routes, own_address
from threepipe.platforms.bsd.system import System
from threepipe.settings import AdapterSettings, Address, NamespaceName, Network

__all__ = ["BsdDevice", "Place", "adapters_on", "add_routes_on", "create_on", "open_on", "remove_leftovers_on"]

_log = logging.getLogger("threepipe")

_COUNTS = ("refused", "crowded", "cut", "sent_packets", "sent_bytes")
"""Counts of a port, by their attributes."""

_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})


class Place(NamedTuple):
    """A system and its TUN driver."""

    system: System
    driver: Driver
    folder: Path | None
    """A folder for the marks of interfaces, emptied when the system starts; None if the system has no such folder."""

    @property
    def interfaces(self) -> Interfaces:
        """The system's interfaces."""
        return Interfaces(self.system, self.driver.kind)


def create_on(place: Place, settings: AdapterSettings) -> "BsdDevice":
    """Create an interface and set it up; on an error leave nothing behind."""
    _refuse(place.driver, settings)
    remove_leftovers_on(place)
    system, driver, interfaces = place.system, place.driver, place.interfaces
    taken = {link.name for link in interfaces.listing().links}
    device = _device(
        place, driver.create(system, interfaces, settings.name, taken), settings.persistent, settings.offload
    )
    try:
        device.configure(settings)
    except BaseException:
        device.unpersist()
        device.close()
        raise
    return device


def open_on(
    place: Place,
    name: str,
    netns: NamespaceName | None,
    offload: bool,
    queues: int,
    packet_information: bool = False,
) -> "BsdDevice":
    """Open an interface that exists and that no program has."""
    _refuse(place.driver, AdapterSettings(name, netns=netns, queues=queues, packet_information=packet_information))
    if not any(link.name == name and _is_tun(place.driver.kind, link) for link in place.interfaces.listing().links):
        raise not_found(name)
    return _device(place, place.driver.attach(place.system, name), True, offload)


def _device(place: Place, opened: Opened, persistent: bool, offload: bool) -> "BsdDevice":
    """Return the device of an open interface; on an error close it."""
    try:
        return BsdDevice(place, opened, persistent, offload)
    except BaseException:
        place.system.close(opened.descriptor)
        if opened.removes:
            _destroy(place.interfaces, opened.name)
        raise


def adapters_on(place: Place, netns: NamespaceName | None) -> list[AdapterInfo]:
    """Return the TUN interfaces of all programs."""
    _refuse(place.driver, AdapterSettings("", netns=netns))
    listing = place.interfaces.listing()
    return [_info(listing, link) for link in listing.links if _is_tun(place.driver.kind, link)]


def add_routes_on(place: Place, index: int, networks: Iterable[Network]) -> None:
    """Lead networks to the interface `index`, which is up. Raises `AdapterError`."""
    listing = place.interfaces.listing()
    names = [link.name for link in listing.links if link.index == index]
    if not names:
        raise AdapterGone(errno.ENXIO, f"interface {index} was removed by another program; create it again")
    for network in networks:
        place.interfaces.add_route(names[0], index, network, own_address(listing, index, network.version))


def remove_leftovers_on(place: Place) -> None:
    """Remove the interfaces that killed programs have left, and their routes with them. Raises `AdapterError`."""
    if place.folder is not None:
        interfaces = place.interfaces
        for name in leftovers(place.folder, sorted(link.name for link in interfaces.listing().links)):
            _destroy(interfaces, name)


def _is_tun(kind: Kind, link: Link) -> bool:
    """Return True for a TUN interface: by its name or, where it can have any, by its type."""
    if kind.point_to_point is None or own_name(kind, link.name):
        return own_name(kind, link.name)
    return link.type == kind.point_to_point and not link.name.startswith(("ppp", "ng"))


def _info(listing: Listing, link: Link) -> AdapterInfo:
    addresses = tuple(address for index, address in listing.addresses if index == link.index)
    networks = {address.network for address in addresses}
    routes = dict.fromkeys(network for index, network in listing.routes if index == link.index)
    counts = link.statistics  # Packets to the program are counted with their headers.
    received_bytes = max(counts.received_bytes - FAMILY_SIZE * counts.received_packets, 0)
    return AdapterInfo(
        name=link.name,
        index=link.index,
        mtu=link.mtu,
        link_up=bool(link.flags & IFF_UP),
        addresses=addresses,
        routes=tuple(network for network in routes if network not in networks),
        statistics=counts._replace(received_bytes=received_bytes),
    )


class BsdDevice:
    """An interface and the descriptor of its packets."""

    def __init__(self, place: Place, opened: Opened, persistent: bool, offload: bool) -> None:
        self._place = place
        self._system, self._interfaces, self._driver = place.system, place.interfaces, place.driver
        self._opened = opened
        self._name = opened.name
        self._persistent = persistent
        self._open = True
        self._mark = _mark(place.folder, opened.name) if opened.removes and not persistent else None
        self._up = False
        self._port: BsdPort | None = None
        self._counts = Counter[str]()
        """The `_COUNTS` of the ports of ended sessions."""
        self._lock = threading.RLock()  # One change at a time.
        listing = self._interfaces.listing()
        self._index = self._link(listing, None).index
        present = [network for index, network in listing.routes if index == self._index]
        self._routes = Routes(self._interfaces, self._driver.kind, self._index, present)
        self._interfaces.set_up(self._name, False)  # OpenBSD takes it up at opening.
        self._offload = offload and self._driver.set_offload(self._system, opened.descriptor)
        call_in_child(self, BsdDevice._leave_behind)

    @property
    def name(self) -> str:
        if self._open:
            self._name = self._driver.name_of(self._system, self._opened)
        return self._name

    @property
    def index(self) -> int:
        return self._index

    def info(self) -> AdapterInfo:
        listing = self._interfaces.listing()
        found = _info(listing, self._link(listing, self._index))
        networks = {address.network for address in found.addresses}
        waiting = [route for route in self._routes.waiting(listing, found.link_up) if route not in networks]
        found = found._replace(routes=(*found.routes, *waiting))
        return found._replace(persistent=self._persistent, statistics=self._corrected(found.statistics))

    def _corrected(self, counts: AdapterStatistics) -> AdapterStatistics:
        """Return the system's counts, completed and corrected by those of the ports."""
        own = self._counts + _counts(self._port)
        counters = self._driver.kind.counters
        counts = counts._replace(
            received_dropped=counts.received_dropped + own["cut"], sent_dropped=counts.sent_dropped + own["refused"]
        )
        if counters.dropped_has_refused:
            counts = counts._replace(received_dropped=max(counts.received_dropped - own["crowded"], 0))
        if counters.sent_twice:
            counts = counts._replace(sent_packets=own["sent_packets"], sent_bytes=own["sent_bytes"])
        return counts

    def _link(self, listing: Listing, index: int | None) -> Link:
        """Return the interface, by its index if that is known: a name may change."""
        for link in listing.links:
            if link.index == index or (index is None and link.name == self._name):
                return link
        raise AdapterGone(errno.ENXIO, f"{self._name} was removed by another program; create or open it again")

    def configure(self, settings: AdapterSettings) -> None:
        """Set the MTU, addresses and routes of a new interface. Raises `AdapterError`, for IPv6 `IPv6Unavailable`."""
        if settings.mtu is not None:
            self.set_mtu(settings.mtu)
        networks = {address.network for address in settings.addresses}
        items = dict.fromkeys([*settings.addresses, *(route for route in settings.routes if route not in networks)])
        refused: list[Address | Network] = []
        for item in items:
            if refused and item.version == 6:
                refused.append(item)  # NetBSD's routes need the address that it refused.
                continue
            try:
                self.add(item)
            except IPv6Unavailable:
                refused.append(item)
        if refused:
            text = f"IPv6 is disabled here, so {self._name} does not get {', '.join(map(str, refused))}"
            if len(refused) == len(items):
                raise IPv6Unavailable(errno.EAFNOSUPPORT, text)
            _log.warning(text)

    def set_mtu(self, mtu: int) -> None:
        if (port := self._port) is not None:
            port.expect(mtu)
        try:
            self._interfaces.set_mtu(self.name, mtu)
        except AdapterError as error:
            if error.errno != errno.EINVAL:
                raise
            text = f"{self._name}: {self._driver.kind.name} refuses an MTU of {mtu} bytes; give 1280 to 1500"
            raise AdapterError(errno.EINVAL, text) from None

    def add(self, item: Address | Network) -> None:
        with self._lock:
            try:
                if isinstance(item, Network):
                    self._routes.add(self.name, item, self._up)
                else:
                    self._add_address(item)
            except AdapterError as error:
                if item.version == 6 and error.errno in _NO_IPV6:
                    text = f"IPv6 is disabled here, so {self._name} does not get {item}"
                    raise IPv6Unavailable(error.errno, text) from None
                raise

    def _add_address(self, address: Address) -> None:
        name, network = self.name, address.network
        self._routes.check(address)
        self._interfaces.add_address(name, address)
        new = address.version == 4 and network.prefixlen < network.max_prefixlen and network not in self._routes
        try:
            if not self._up:
                self._interfaces.set_up(name, False)  # An address takes it up.
            if new:
                self._routes.add(name, network, self._up)
            self._routes.restore(name, self._up)
        except BaseException:
            self._routes.withdraw(name, address, network if new else None)
            raise

    def remove(self, item: Address | Network) -> None:
        with self._lock:
            if isinstance(item, Network):
                self._routes.remove(self.name, item)
                return
            listing = self._interfaces.listing()
            left = {address.network for index, address in listing.addresses if index == self._index and address != item}
            unwanted = item.network if item.version == 4 and item.network not in left else None
            try:
                self._routes.withdraw(self.name, item, unwanted)
            finally:
                self._routes.restore(self.name, self._up)

    def start(self, capacity: int) -> BsdPort:
        descriptor = self._opened.descriptor
        with self._lock:
            mtu = self._get_mtu()
            try:
                discard(self._system, descriptor)  # These packets waited for an earlier session.
                self._driver.make_room(self._system, descriptor, capacity, mtu)
            except OSError as error:
                raise explained(error, self._name) from None
            try:
                self._driver.before_up(self._interfaces, self.name, self._own_ipv6())
                self._interfaces.set_up(self._name, True)
                self._up = True
                self._routes.restore(self.name, self._up)
                make = OffloadPort if self._offload else self._driver.port
                kind, get_mtu, take_down = self._driver.kind, self._get_mtu, self._take_link_down
                self._port = make(Attachment(self._system, kind, descriptor, self._name, get_mtu, take_down))
            except BaseException:
                self._take_link_down()
                raise
            return self._port

    def _own_ipv6(self) -> list[Address]:
        addresses = self._interfaces.listing().addresses
        return [address for index, address in addresses if index == self._index and address.version == 6]

    def _get_mtu(self) -> int:
        return self._link(self._interfaces.listing(), self._index).mtu

    def _take_link_down(self) -> None:
        with self._lock:
            self._up = False
            self._counts += _counts(self._port)
            self._port = None
            try:
                self._interfaces.set_up(self.name, False)
            except AdapterGone:
                pass  # The link is gone too.

    def detach(self, capacity: int) -> NoReturn:
        text = f"adapters of {self._driver.kind.name} cannot be handed over; use `threepipe pipe` in place"
        raise AdapterUnavailable(errno.ENOTSUP, text)

    def unpersist(self) -> None:
        self._persistent = False

    def close(self) -> None:
        with self._lock:
            if not self._open:
                return
            name, self._open = self.name, False
            self._system.close(self._opened.descriptor)
            if not self._persistent and (self._opened.removes or self._driver.persists):
                _destroy(self._interfaces, name)
            if self._mark is not None:
                self._mark.remove()

    def _leave_behind(self) -> None:
        """Close the descriptor in a forked child, where it would keep the interface as long as the child lives."""
        self._lock = threading.RLock()
        if self._open:
            self._open = False
            self._system.close(self._opened.descriptor)
            if self._mark is not None:
                self._mark.leave_behind()


def _counts(port: BsdPort | None) -> "Counter[str]":
    return Counter({name: getattr(port, name) for name in _COUNTS} if port is not None else {})


def _mark(folder: Path | None, name: str) -> Mark | None:
    if folder is None:
        return None
    try:
        return Mark(folder, name)
    except OSError as error:
        _log.warning(f"{name} stays if this program is killed, as {folder} cannot be written: {error.strerror}")
        return None


def _destroy(interfaces: Interfaces, name: str) -> None:
    try:
        interfaces.destroy(name)
    except AdapterGone:
        pass  # It went when its descriptor was closed.


def _refuse(driver: Driver, settings: AdapterSettings) -> None:
    """Raise `InvalidSetting` for settings that these systems do not have."""
    kind = driver.kind.name
    asked = {
        "network namespaces": settings.netns is not None,
        "several queues for an adapter": settings.queues > 1,
        "metrics of routes": settings.metric is not None,
        "owners of adapters": settings.owner is not None or settings.group is not None,
        "packet information": settings.packet_information,
        "adapters with Windows' settings": settings.windows is not None,
        "persistent adapters": settings.persistent and not driver.persists,
    }
    if lacking := ", ".join(what for what, wanted in asked.items() if wanted):
        raise InvalidSetting(f"{kind} has no {lacking}; leave that out")
