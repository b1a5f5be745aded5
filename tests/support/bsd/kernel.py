"""The common part of the kernels' models: descriptors, ioctls of interfaces, lists, and the wire.

A `Kernel` is the `system` argument of the platform. Each system's TUN driver, with its recorded answers, is in a file
of its own. The shared part is as unkind as any of them: addresses take an interface up, and an interface that goes down
loses its static routes and refuses new ones.
"""

import errno
import struct
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network

from tests.support.bsd.interfaces import Control, Interface, IpAddress, Tun, fail
from tests.support.bsd.messages import interface_list, ip, prefix_length, route_list
from tests.support.bsd.routing import RoutingSocket
from threepipe.net.watch import Watch
from threepipe.platforms.bsd import kind as bsd
from threepipe.platforms.bsd.system import Datagrams

__all__ = ["HEADER_SIZE", "RTF_LOCAL_HOST", "Kernel"]

HEADER_SIZE = 4
"""Bytes of the header of a packet, which all of the systems count in packets to the program."""
RTF_LOCAL_HOST = bsd.RTF_UP | bsd.RTF_HOST


class Kernel(RoutingSocket):
    """A kernel: the `system` of the platform, and the wire of its interfaces."""

    tun_type = 0x83  # IFT_TUNNEL
    cloner_request: int | None = None
    neighbour_requests: tuple[int, ...] = ()
    """Requests about neighbour discovery, on a socket of IPv6."""

    def __init__(self, *, root: bool = True) -> None:
        super().__init__(root)
        self.has_ipv6 = True
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.max_mtu = 65535
        self.release = 0
        """Which of the lists of interfaces the kernel has: 0 for the present one, 1 for the one before."""

    # The system's calls.

    def open(self, path: str) -> int:
        with self.lock:
            if not self.root:
                raise fail(errno.EACCES)
            tun = self.open_node(path)
            return self._add(tun, tun.bell.fileno())

    def open_node(self, path: str) -> Tun:
        raise fail(errno.ENOENT)

    def socket(self, family: int, kind: int, protocol: int) -> int:
        if family == self.kind.inet6 and not self.has_ipv6:
            raise fail(errno.EAFNOSUPPORT)
        control = Control(family, protocol)
        return self._add(control, control.bell.fileno())

    def connect_control(self, descriptor: int, number: int, unit: int) -> None:
        raise fail(errno.EAFNOSUPPORT)

    def set_option(self, descriptor: int, level: int, option: int, value: bytes) -> None:
        raise fail(errno.ENOTSOCK)

    def get_option(self, descriptor: int, level: int, option: int, size: int) -> bytes:
        raise fail(errno.ENOTSOCK)

    def datagrams(self) -> Datagrams | None:
        return None

    def watch(self) -> Watch:
        return Watch()

    def _add(self, file: Tun | Control, descriptor: int) -> int:
        self.files[descriptor] = file
        return descriptor

    def ioctl(self, descriptor: int, request: int, argument: bytes) -> bytes:
        with self.lock:
            file = self.files[descriptor]
            assert request >> 16 & 0x1FFF == len(argument), "the request has another size than its structure"
            if isinstance(file, Tun):
                return file.ioctl(request, argument)
            if request == bsd.FIONBIO:
                return argument
            return self._interface_request(file, request, argument)

    def readv(self, descriptor: int, buffers: Sequence[bytearray | memoryview], /) -> int:
        with self.lock:
            tun = self.files[descriptor]
            record = memoryview(tun.read() if isinstance(tun, Tun) else self.hear(tun))
        used = 0
        for buffer in buffers:
            part = record[used : used + len(buffer)]
            buffer[: len(part)] = part
            used += len(part)
        return used  # The rest is lost.

    def writev(self, descriptor: int, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        record = b"".join(buffers)
        with self.lock:
            file = self.files[descriptor]
            return file.write(record) if isinstance(file, Tun) else self.route(record)

    def close(self, descriptor: int) -> None:
        with self.lock:
            file = self.files.pop(descriptor)
            if not isinstance(file, Tun):
                file.bell.close()
                return
            file.last_close()
            if file.interface is not None:
                file.interface.tun = None
                file.interface.queue.clear()
            file.bell.close()

    def kill(self) -> None:
        """End the program that has all of these descriptors."""
        for descriptor in list(self.files):
            self.close(descriptor)

    # Interfaces.

    def make(self, name: str) -> Interface:
        if name in self.interfaces:
            raise fail(errno.EEXIST)
        interface = self.interfaces[name] = Interface(name, self.next_index, self.tun_type)
        self.next_index += 1
        return interface

    def unmake(self, interface: Interface) -> None:
        del self.interfaces[interface.name]
        if interface.tun is not None:
            interface.tun.interface = None
            if self.kind.tells_of_removal:
                interface.tun.bell.ring()
        self.tell()

    def _interface_request(self, file: Control, request: int, argument: bytes) -> bytes:
        kind = self.kind
        name = argument[: bsd.NAME_SIZE].partition(b"\0")[0].decode()
        body = argument[bsd.NAME_SIZE :]
        changes: dict[int, Callable[[Interface, bytes], None]] = {
            kind.set_flags: self._set_flags,
            kind.set_mtu: self._set_mtu,
            kind.destroy: lambda interface, body: self.unmake(interface),
            kind.add_address: self._add_ipv4,
            kind.add_address_in6: self._add_ipv6,
            kind.remove_address: self._remove_address,
            kind.remove_address_in6: self._remove_address,
        }
        if kind.set_name is not None:
            changes[kind.set_name] = self.rename
        is_ipv6 = request in (kind.add_address_in6, kind.remove_address_in6, *self.neighbour_requests)
        if is_ipv6 != (file.family == kind.inet6):
            raise fail(errno.EINVAL)
        if request in self.neighbour_requests:
            return self.neighbour_request(self._found(name), request, argument)
        if request == kind.get_flags:
            return argument[: bsd.NAME_SIZE] + struct.pack("H", self._found(name).flags) + body[2:]
        if request == self.cloner_request:
            self.need_root()
            made = self.make(name).name.encode()
            return made.ljust(bsd.NAME_SIZE, b"\0") + body if request & bsd.IOC_OUT else argument
        if request not in changes:
            raise fail(errno.ENOTTY)
        self.need_root()
        changes[request](self._found(name), body)
        return argument

    def _found(self, name: str) -> Interface:
        if name not in self.interfaces:
            raise fail(errno.ENXIO)
        return self.interfaces[name]

    def rename(self, interface: Interface, body: bytes) -> None:
        raise fail(errno.ENOTTY)

    def neighbour_request(self, interface: Interface, request: int, argument: bytes) -> bytes:
        raise fail(errno.ENOTTY)

    def unusable(self, name: str) -> set[IpAddress]:
        """Return the addresses of the interface to which packets are dropped."""
        interface = self.interfaces[name]
        return interface.detached | interface.tentative

    def _set_flags(self, interface: Interface, body: bytes) -> None:
        (flags,) = struct.unpack_from("H", body)
        was_up = interface.up
        interface.flags = flags
        if interface.up and not was_up:
            self.comes_up(interface)
        if was_up and not interface.up:
            self.goes_down(interface)
            for network in [key for key, (bits, _) in interface.routes.items() if bits & bsd.RTF_STATIC]:
                if not self.keeps_routes:
                    del interface.routes[network]

    def comes_up(self, interface: Interface) -> None:
        """Act as the network stack when the interface is set up."""

    def goes_down(self, interface: Interface) -> None:
        """Act as the network stack when the interface is set down."""

    def _set_mtu(self, interface: Interface, body: bytes) -> None:
        (mtu,) = struct.unpack_from("i", body)
        if not self.accepts_mtu(mtu):
            raise fail(errno.EINVAL)
        interface.mtu = mtu

    def accepts_mtu(self, mtu: int) -> bool:
        return 576 <= mtu <= self.max_mtu

    def _add_ipv4(self, interface: Interface, body: bytes) -> None:
        own, other, mask = (ip(self.kind, body[start : start + 16]) for start in (0, 16, 32))
        assert isinstance(other, IPv4Address), "a point-to-point interface needs the other end of the link"
        assert isinstance(own, IPv4Address)
        self.add_host_route(interface, other, body[:16])
        self.add_address(interface, own, prefix_length(mask))

    def add_host_route(self, interface: Interface, other: IPv4Address, gateway: bytes) -> None:
        """Add the route to the other end of the link."""
        interface.routes[ip_network(other)] = RTF_LOCAL_HOST, b""

    def _add_ipv6(self, interface: Interface, body: bytes) -> None:
        own, mask = ip(self.kind, body[:28]), ip(self.kind, body[56:84])
        flags, _, _, valid, preferred = struct.unpack_from("=iqqII", body, 84)
        if flags:
            raise fail(errno.EINVAL)  # NetBSD and OpenBSD take none of those that they set themselves.
        assert (valid, preferred) == (0xFFFFFFFF, 0xFFFFFFFF)
        assert isinstance(own, IPv6Address)
        interface.routes[ip_network((own, prefix_length(mask)), strict=False)] = bsd.RTF_UP, b""
        self.add_address(interface, own, prefix_length(mask))

    def add_address(self, interface: Interface, address: IpAddress, prefix: int) -> None:
        """Give the interface an address, or set one again that it has."""
        interface.addresses[address] = prefix
        interface.flags |= bsd.IFF_UP
        if interface.tun is not None:
            interface.ready = True

    def _remove_address(self, interface: Interface, body: bytes) -> None:
        address = ip(self.kind, body)
        if address not in interface.addresses:
            raise fail(errno.EADDRNOTAVAIL)
        prefix = interface.addresses.pop(address)
        interface.detached.discard(address)
        interface.tentative.discard(address)
        self.leave_routes(interface, address, body[: body[0]])
        network = ip_network((address, prefix), strict=False)
        left = {ip_network(each, strict=False) for each in interface.addresses.items()}
        if address.version == 6 and network not in left:
            interface.routes.pop(network, None)

    def leave_routes(self, interface: Interface, address: IpAddress, gateway: bytes) -> None:
        """Act as the system on the routes that lead by an address which is removed, and the one to it."""
        for network in [key for key, (_, via) in interface.routes.items() if via == gateway]:
            del interface.routes[network]
        interface.routes.pop(ip_network(address), None)

    # The lists of sysctl.

    def sysctl(self, path: Sequence[int]) -> bytes:
        kind = self.kind
        network, route, _, _, wanted, _ = path
        assert (network, route) == (bsd.CTL_NET, kind.route)
        with self.lock:
            if wanted == bsd.NET_RT_DUMP:
                return route_list(kind, self.interfaces.values())
            if wanted != kind.listings[self.release]:
                raise fail(errno.EINVAL)
            return interface_list(kind, self.release, self.interfaces.values())

    # The wire.

    def deliver(self, name: str, packets: Sequence[bytes]) -> int:
        """Have the stack send packets through the interface; return how many it kept, or counted as dropped."""
        with self.lock:
            interface = self._found(name)
            taken = 0
            for packet in packets:
                if not interface.up or interface.tun is None:
                    break
                if len(interface.queue) >= interface.limit:
                    interface.counts["dropped"] += 1  # The sender may get an error.
                    taken += 1
                    continue
                interface.queue.append(packet)
                interface.counts["opackets"] += 1
                interface.counts["obytes"] += len(packet) + HEADER_SIZE
                interface.tun.bell.ring()
                taken += 1
            return taken

    def arrivals(self, name: str, timeout: float) -> list[bytes]:
        """Wait for packets of the program, and return those that have arrived."""
        deadline = time.monotonic() + timeout
        with self.changed:
            interface = self.interfaces[name]
            while not interface.arrived and (left := deadline - time.monotonic()) > 0:
                self.changed.wait(left)
            arrived, interface.arrived = interface.arrived, []
            return arrived
