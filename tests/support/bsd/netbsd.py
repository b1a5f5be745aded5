"""A model of NetBSD's if_tun: its answers are those that 7.99.34's gave, errno by errno.

What was not recorded is as in the sources of if_tun.c (1.127 of that release, 1.173), in6.c (1.212, 1.251) and if.c: an
interface that goes down detaches its addresses, and duplicate address detection awaits those of IPv6 when it comes up
again. Before 1.212, of July 2016, in6.c initializes the interface also when its only address is set again.
"""

import errno
import re
import struct
from ipaddress import IPv4Address, IPv6Address, ip_network

from tests.support.bsd.interfaces import Interface, IpAddress, Tun, fail
from tests.support.bsd.kernel import RTF_LOCAL_HOST, Kernel
from threepipe.platforms.bsd import netbsd
from threepipe.platforms.bsd.kind import IFF_UP, iow
from threepipe.settings import Network

__all__ = ["NetBsdKernel"]

IFF_RUNNING = 0x40
TUNSIFHEAD = iow("t", 66, 4)
TUNSLMODE = iow("t", 87, 4)
TUNMTU = 1500
"""Bytes that it takes at most, whatever the MTU of the interface."""
INET, INET6 = (0).to_bytes(3, "big") + b"\2", (0).to_bytes(3, "big") + b"\x18"


class NetBsdTun(Tun):
    """An open /dev/tunN."""

    header = False

    def ioctl(self, request: int, argument: bytes) -> bytes:
        if request in (TUNSIFHEAD, TUNSLMODE):
            self.header = request == TUNSIFHEAD and bool(struct.unpack("i", argument)[0])
            return argument
        return super().ioctl(request, argument)

    def read(self) -> bytes:
        if self.interface is None:
            raise fail(errno.ENXIO)
        if not self.interface.ready:
            raise fail(errno.EHOSTDOWN)
        packet = self.take()
        return (INET if packet[0] >> 4 == 4 else INET6) + packet if self.header else packet

    def write(self, record: bytes) -> int:
        if self.interface is None:
            raise fail(errno.ENXIO)
        if len(record) < 4 or len(record) - 4 > TUNMTU:
            raise fail(errno.EIO)
        if not self.header or record[:4] not in (INET, INET6):
            raise fail(errno.EAFNOSUPPORT)
        assert isinstance(self.kernel, NetBsdKernel)
        if self.kernel.blocked in record:
            raise fail(errno.ENETUNREACH)  # By npf(7), whose answer tun(4) passes on.
        self.arrive(record[4:])
        return len(record)


class NetBsdKernel(Kernel):
    """NetBSD, with device nodes for `nodes` interfaces."""

    kind = netbsd.KIND
    cloner_request = iow("i", 122, 144)
    keeps_routes = True

    def __init__(self, *, root: bool = True, nodes: int = 4) -> None:
        super().__init__(root=root)
        self.connected: set[tuple[str, IpAddress]] = set()
        """Addresses of interfaces of which the system knows that it has made the route to them (IFA_ROUTE)."""
        self.max_mtu = 1500
        self.nodes = nodes
        self.blocked = b"a text that no packet has"
        """Packets with these bytes are blocked by a packet filter."""

    def open_node(self, path: str) -> Tun:
        found = re.fullmatch(r"/dev/(tun([0-9]+))", path)
        if not found or int(found[2]) >= self.nodes:
            raise fail(errno.ENOENT)
        interface: Interface = self.interfaces.get(found[1]) or self.make(found[1])
        if interface.tun is not None:
            raise fail(errno.EBUSY)
        interface.tun = NetBsdTun(self, interface)
        interface.ready = bool(interface.addresses)
        return interface.tun

    def add_address(self, interface: Interface, address: IpAddress, prefix: int) -> None:
        is_new = address not in interface.addresses
        was_up = interface.up
        was_ready = interface.ready
        super().add_address(interface, address, prefix)
        interface.flags |= IFF_RUNNING
        if isinstance(address, IPv6Address):
            interface.detached.discard(address)
            if is_new and was_up and was_ready:
                interface.tentative.add(address)
            if sum(isinstance(each, IPv6Address) for each in interface.addresses) > 1 and not was_up:
                interface.flags &= ~IFF_UP  # Only the first one initializes the interface.

    def add_host_route(self, interface: Interface, other: IPv4Address, gateway: bytes) -> None:
        if other in interface.addresses or any(each == other for _, each in self.connected):
            return
        host = ip_network(other)
        taken = any(host in each.routes for each in self.interfaces.values())
        assert not taken, "the kernel would free the new address and use it"
        interface.routes[host] = RTF_LOCAL_HOST, gateway
        self.connected.add((interface.name, other))

    def route_removed(self, interface: Interface, network: Network) -> None:
        for address, prefix in interface.addresses.items():
            if network in (ip_network(address), ip_network((address, prefix), strict=False)):
                self.connected.discard((interface.name, address))

    def leave_routes(self, interface: Interface, address: IpAddress, gateway: bytes) -> None:
        if (interface.name, address) in self.connected:
            self.connected.remove((interface.name, address))
            del interface.routes[ip_network(address)]

    def unmake(self, interface: Interface) -> None:
        self.connected -= {(interface.name, each) for each in interface.addresses}
        super().unmake(interface)

    def comes_up(self, interface: Interface) -> None:
        awaited = {each for each in interface.detached if isinstance(each, IPv6Address)}
        interface.tentative |= awaited if interface.ready else set()
        interface.detached.clear()

    def goes_down(self, interface: Interface) -> None:
        interface.detached |= interface.addresses.keys()
        interface.tentative.clear()
        interface.queue.clear()
