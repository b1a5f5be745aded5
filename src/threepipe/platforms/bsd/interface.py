"""Interfaces of the system: flags, MTU, addresses and routes, by ioctls and messages of the routing socket.

Knows no TUN driver. An address of IPv4 has itself as the other end of the link, and the network of its prefix is a
route of its own, as with wg-quick on macOS: a point-to-point interface has no network by itself. For IPv6 the kernel
adds that route.
"""

import errno
import itertools
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from threepipe.errors import AdapterError, AdapterGone, AdapterUnavailable, NameTaken, PermissionDenied
from threepipe.platforms.bsd import messages
from threepipe.platforms.bsd.kind import (
    AF_INET,
    CTL_NET,
    IFF_UP,
    IN6_IFREQ,
    NAME_SIZE,
    NET_RT_DUMP,
    RTF_STATIC,
    RTM_ADD,
    RTM_DELETE,
    SOCK_DGRAM,
    SOCK_RAW,
    Kind,
)
from threepipe.platforms.bsd.messages import IpAddress, Link, Route
from threepipe.platforms.bsd.system import System
from threepipe.settings import Address, Network

__all__ = ["Interfaces", "explained"]

_INFINITE = 0xFFFFFFFF  # ND6_INFINITE_LIFETIME of <netinet6/nd6.h>.
_SHORT, _INT = struct.Struct("H"), struct.Struct("i")
_sequence = itertools.count(1)


class Listing(NamedTuple):
    """All interfaces, addresses and static routes at one moment; addresses and routes with the interface's index."""

    links: list[Link]
    addresses: list[tuple[int, Address]]
    routes: list[tuple[int, Network]]


class Interfaces:
    """The interfaces of a system."""

    def __init__(self, system: System, kind: Kind) -> None:
        self._system = system
        self._kind = kind

    def listing(self) -> Listing:
        """Return all interfaces."""
        kind = self._kind
        interfaces = self._sysctl(kind.listings)
        return Listing(
            list(messages.parse_links(kind, interfaces)),
            list(messages.parse_addresses(kind, interfaces)),
            [(route.index, route.network) for route in self.routes() if route.flags & RTF_STATIC],
        )

    def routes(self) -> list[Route]:
        """Return all routes."""
        return list(messages.parse_routes(self._kind, self._sysctl((NET_RT_DUMP,))))

    def _sysctl(self, lists: tuple[int, ...]) -> bytes:
        """Return the first of `lists` that the system has, as older releases have older ones alone."""
        for number in lists[:-1]:
            try:
                return self._system.sysctl((CTL_NET, self._kind.route, 0, 0, number, 0))
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise explained(error, "the system's interfaces") from None
        try:
            return self._system.sysctl((CTL_NET, self._kind.route, 0, 0, lists[-1], 0))
        except OSError as error:
            raise explained(error, "the system's interfaces") from None

    def set_up(self, name: str, up: bool) -> None:
        """Set the interface up or down."""
        kind = self._kind
        reply = self.request(name, kind.get_flags, bytes(kind.ifreq - NAME_SIZE))
        (flags,) = _SHORT.unpack_from(reply, NAME_SIZE)
        changed = bytearray(reply[NAME_SIZE:])  # On FreeBSD the flags' upper half comes after them.
        _SHORT.pack_into(changed, 0, flags | IFF_UP if up else flags & ~IFF_UP)
        self.request(name, kind.set_flags, bytes(changed))

    def set_mtu(self, name: str, mtu: int) -> None:
        """Set the MTU in bytes."""
        self.request(name, self._kind.set_mtu, _INT.pack(mtu).ljust(self._kind.ifreq - NAME_SIZE, b"\0"))

    def create(self, name: str, request: int) -> bytes:
        """Create the interface by SIOCIFCREATE, and return the `struct ifreq`.

        Raises `NameTaken`, and `AdapterUnavailable` if the kernel has no driver of that name.
        """
        try:
            return self.request(name, request, bytes(self._kind.ifreq - NAME_SIZE))
        except AdapterError as error:
            if error.errno not in (errno.EINVAL, errno.ENXIO, errno.ENODEV):
                raise
            text = f"this kernel makes no interface {name}: it has no TUN driver; as root, load the module if_tun"
            raise AdapterUnavailable(error.errno, text) from None

    def destroy(self, name: str) -> None:
        """Destroy the interface."""
        self.request(name, self._kind.destroy, bytes(self._kind.ifreq - NAME_SIZE))

    def rename_via_pointer(self, name: str, pointer: bytes) -> None:
        """Give the interface the name that a pointer leads to, as SIOCSIFNAME takes it. Raises `NameTaken`."""
        assert self._kind.set_name is not None
        self.request(name, self._kind.set_name, pointer.ljust(self._kind.ifreq - NAME_SIZE, b"\0"))

    def add_address(self, name: str, address: Address) -> None:
        """Add the address, or set it again, but not the route to its network that IPv4 needs."""
        kind = self._kind
        ip, mask = (messages.sockaddr(kind, each) for each in (address.ip, address.netmask))
        if address.version == 4:
            body = ip + ip + mask
            self.request(name, kind.add_address, body.ljust(kind.add_ipv4[1] - NAME_SIZE, b"\0"))
            return
        lifetime = struct.pack("qqII", 0, 0, _INFINITE, _INFINITE)
        # No flags: NetBSD takes none, and elsewhere IN6_IFF_NODAD keeps no address from detection.
        body = ip + bytes(len(ip)) + mask + bytes(_INT.size) + lifetime
        self.request(name, kind.add_address_in6, body.ljust(kind.add_ipv6[1] - NAME_SIZE, b"\0"), kind.inet6)

    def remove_address(self, name: str, address: Address) -> None:
        """Remove the address."""
        kind = self._kind
        body = messages.sockaddr(kind, address.ip)
        if address.version == 4:
            self.request(name, kind.remove_address, body.ljust(kind.ifreq - NAME_SIZE, b"\0"))
        else:
            self.request(name, kind.remove_address_in6, body.ljust(IN6_IFREQ - NAME_SIZE, b"\0"), kind.inet6)

    def add_route(self, name: str, index: int, network: Network, gateway: IpAddress | None) -> None:
        """Add a route to the interface; `gateway` is an address of it.

        Systems whose routes lead by addresses need one: without it they find no source address for packets.
        """
        if gateway is None and self._kind.routes_by_address:
            text = f"route {network}: {name} has no address of IPv{network.version}; give it one first"
            raise AdapterError(errno.ENETUNREACH, text)
        self._route(RTM_ADD, name, index, network, gateway)

    def remove_route(self, name: str, index: int, network: Network, gateway: IpAddress | None) -> None:
        """Remove a route to the interface; a missing one is not an error."""
        try:
            self._route(RTM_DELETE, name, index, network, gateway)
        except AdapterError as error:
            if error.errno != errno.ESRCH:
                raise

    def add_host_route(self, address: IpAddress, gateway: bytes, flags: int) -> None:
        """Add a route to one machine by `gateway`, a socket address, with `flags` like RTF_GATEWAY."""
        self._tell(messages.host_message(self._kind, RTM_ADD, address, gateway, flags, next(_sequence)), str(address))

    def remove_host_route(self, address: IpAddress) -> None:
        """Remove the route to one machine; a missing one is not an error."""
        try:
            self._tell(messages.host_message(self._kind, RTM_DELETE, address, b"", 0, next(_sequence)), str(address))
        except AdapterError as error:
            if error.errno != errno.ESRCH:
                raise

    def _route(self, action: int, name: str, index: int, network: Network, gateway: IpAddress | None) -> None:
        kind = self._kind
        via = gateway if kind.routes_by_address else None
        self._tell(messages.route_message(kind, action, network, index, via, next(_sequence)), f"{network}", name)

    def _tell(self, message: bytes, network: str, name: str = "the system") -> None:
        """Write a message about the route to `network` to the routing socket."""
        try:
            with self._socket(self._kind.route, SOCK_RAW) as opened:
                self._system.writev(opened, [message])
        except OSError as error:
            raise explained(error, name, f"route {network}: ") from None

    def request(self, name: str, request: int, argument: bytes, family: int = AF_INET) -> bytes:
        """Call an ioctl with a structure that starts with the interface's name; return it. Raises `AdapterError`."""
        try:
            with self._socket(family, SOCK_DGRAM) as opened:
                return self._system.ioctl(opened, request, os.fsencode(name).ljust(NAME_SIZE, b"\0") + argument)
        except OSError as error:
            raise explained(error, name) from None

    @contextmanager
    def _socket(self, family: int, kind: int) -> Iterator[int]:
        descriptor = self._system.socket(family, kind, 0)
        try:
            yield descriptor
        finally:
            self._system.close(descriptor)


def explained(error: OSError, name: str, what: str = "") -> AdapterError:
    """Return the `AdapterError` for the system's refusal of a request about the interface `name`."""
    code = error.errno or 0
    if code in (errno.ENXIO, errno.ENODEV):
        return AdapterGone(code, f"{name} was removed by another program; create or open it again")
    if code in (errno.EPERM, errno.EACCES):
        return PermissionDenied(code, f"{what}setting up {name} needs root; run as root, for example with sudo or doas")
    if code == errno.EEXIST and not what:
        return NameTaken(code, f"an interface named {name} exists; choose another name, or a template like tun%d")
    if code == errno.EEXIST:
        return AdapterError(code, f"{what}the system has it already; leave it out for {name}")
    return AdapterError(code, f"{what}{name}: {error.strerror}")
