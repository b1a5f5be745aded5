"""The routing socket of the kernels' models: the messages that change routes, and those that tell of changes."""

import errno
import struct
from ipaddress import ip_address, ip_interface, ip_network

from tests.support.bsd.interfaces import Control, Interface, Tun, fail
from tests.support.bsd.messages import RoutingMessage, ip, sockaddr
from threepipe.platforms.bsd import kind as bsd
from threepipe.platforms.bsd.kind import Kind
from threepipe.settings import Network

__all__ = ["RoutingSocket"]


class RoutingSocket:
    """The interfaces of a kernel, with the routes that lead to each, and the sockets that hear of changes."""

    kind: Kind
    keeps_routes = False
    """True if an interface that is down has static routes."""

    def __init__(self, root: bool) -> None:
        self.root = root
        self.interfaces: dict[str, Interface] = {}
        self.files: dict[int, Tun | Control] = {}
        self.next_index = 3

    def need_root(self) -> None:
        if not self.root:
            raise fail(errno.EPERM)

    def route_removed(self, interface: Interface, network: Network) -> None:
        """Act as the system after a message has removed a route."""

    def hear(self, socket: Control) -> bytes:
        if not socket.told:
            raise fail(errno.EAGAIN)
        socket.told -= 1
        if not socket.told:
            socket.bell.clear()
        return bytes(100)

    def tell(self) -> None:
        """Tell all routing sockets of a change."""
        for file in self.files.values():
            if isinstance(file, Control) and file.family == self.kind.route:
                file.told += 1
                file.bell.ring()

    def add_gateway(self, name: str, address: str, gateway: str | None, mtu: int = 1500) -> Interface:
        """Make an interface of a network, with a default route by a router there, or as a link of its own."""
        interface = self.interfaces.get(name) or self.make_other(name)
        own = ip_interface(address)
        interface.flags, interface.mtu = bsd.IFF_UP, mtu
        interface.addresses[own.ip] = own.network.prefixlen
        link = struct.pack("BBHBBBB", self.kind.sockaddr_dl, bsd.AF_LINK, interface.index, 6, 0, 0, 0)
        link = link.ljust(self.kind.sockaddr_dl, b"\0")
        interface.routes[own.network] = bsd.RTF_UP, link
        default = ip_network((0 if own.version == 4 else bytes(16), 0))
        if gateway is None:
            interface.routes[default] = bsd.RTF_UP | bsd.RTF_STATIC, link
        else:
            via = sockaddr(self.kind, ip_address(gateway))
            interface.routes[default] = bsd.RTF_UP | bsd.RTF_STATIC | bsd.RTF_GATEWAY, via
        self.tell()
        return interface

    def make_other(self, name: str) -> Interface:
        """Make an interface of another driver than TUN."""
        interface = self.interfaces[name] = Interface(name, self.next_index, 6)  # IFT_ETHER
        self.next_index += 1
        return interface

    def route(self, message: bytes) -> int:
        self.need_root()
        asked = RoutingMessage(self.kind, message)
        network, gateway = asked.network, asked.gateway
        if asked.action == bsd.RTM_DELETE and gateway is None:
            found = [each for each in self.interfaces.values() if network in each.routes]
            if not found:
                raise fail(errno.ESRCH)
            self._delete_route(found[0], network)
            return len(message)
        assert gateway is not None
        by_router = asked.flags & bsd.RTF_GATEWAY
        interface = self._by_router(gateway) if by_router else self._routed(asked.interface or gateway)
        if asked.action == bsd.RTM_DELETE:
            if network not in interface.routes:
                raise fail(errno.ESRCH)
            self._delete_route(interface, network)
            return len(message)
        assert asked.action == bsd.RTM_ADD
        if not interface.up and not self.keeps_routes:
            raise fail(errno.ENETUNREACH)
        if any(network in each.routes for each in self.interfaces.values()):
            raise fail(errno.EEXIST)
        interface.routes[network] = asked.flags, gateway
        self.tell()
        return len(message)

    def _delete_route(self, interface: Interface, network: Network) -> None:
        del interface.routes[network]
        self.route_removed(interface, network)
        self.tell()

    def _by_router(self, gateway: bytes) -> Interface:
        """Return the interface of the network where a router is."""
        address = ip(self.kind, gateway)
        if address.is_loopback:
            loopback = self.interfaces.get("lo0") or self.make_other("lo0")
            loopback.flags = bsd.IFF_UP
            return loopback
        found = [
            (network.prefixlen, each.index, each)
            for each in self.interfaces.values()
            for network in each.routes
            if address in network
        ]
        if not found:
            raise fail(errno.ENETUNREACH)
        return max(found)[2]

    def _routed(self, gateway: bytes) -> Interface:
        """Return the interface that a route leads to."""
        if gateway[1] == bsd.AF_LINK:
            assert len(gateway) == self.kind.sockaddr_dl
            (index,) = struct.unpack_from("H", gateway, 2)
            found = [each for each in self.interfaces.values() if each.index == index]
        else:
            found = [each for each in self.interfaces.values() if ip(self.kind, gateway) in each.addresses]
        if not found:
            raise fail(errno.ENETUNREACH)
        return found[0]
