"""A model of FreeBSD's if_tuntap, after its headers and the text of its sources."""

import ctypes
import errno
import re
import struct
from ipaddress import IPv6Address

from tests.support.bsd.interfaces import Interface, IpAddress, Tun, fail
from tests.support.bsd.kernel import Kernel
from threepipe.platforms.bsd import freebsd
from threepipe.platforms.bsd.kind import ior, iow, iowr

__all__ = ["FreeBsdKernel"]

TUNSIFHEAD, TUNSTRANSIENT, TUNGIFNAME = iow("t", 96, 4), iow("t", 98, 4), ior("t", 93, 32)
SIOCGIFINFO_IN6, SIOCSIFINFO_FLAGS = iowr("i", 108, 72), iowr("i", 87, 72)
ND6_IFF_PERFORMNUD, ND6_IFF_NO_DAD = 0x1, 0x100
TUNMRU = 65535
INET, INET6 = struct.pack("!I", 2), struct.pack("!I", 28)


class FreeBsdTun(Tun):
    """An open /dev/tunN."""

    header = False

    def ioctl(self, request: int, argument: bytes) -> bytes:
        assert isinstance(self.kernel, FreeBsdKernel)
        if self.interface is None:
            raise fail(errno.ENXIO)
        if request == TUNGIFNAME:
            return self.interface.name.encode().ljust(16, b"\0") + argument[16:]
        if request == TUNSIFHEAD:
            self.header = bool(struct.unpack("i", argument)[0])
            return argument
        if request == TUNSTRANSIENT and self.kernel.has_transient:
            self.transient = bool(struct.unpack("i", argument)[0])
            return argument
        return super().ioctl(request, argument)

    def read(self) -> bytes:
        if self.interface is None:
            raise fail(errno.EHOSTDOWN)
        packet = self.take()
        return (INET if packet[0] >> 4 == 4 else INET6) + packet

    def write(self, record: bytes) -> int:
        if self.interface is None:
            raise fail(errno.ENXIO)
        if not self.interface.up or not record:
            return 0  # Ignored silently.
        if len(record) > TUNMRU + 4:
            raise fail(errno.EIO)
        if not self.header or record[:4] not in (INET, INET6):
            raise fail(errno.EAFNOSUPPORT)
        self.arrive(record[4:])
        return len(record)

    def last_close(self) -> None:
        """Take the interface down and its addresses away, and the interface itself if it is transient."""
        if (interface := self.interface) is None:
            return
        interface.flags &= ~1
        interface.addresses.clear()
        interface.routes.clear()
        if self.transient:
            self.kernel.unmake(interface)


class FreeBsdKernel(Kernel):
    """FreeBSD, where /dev/tun makes interfaces; older releases lack TUNSTRANSIENT."""

    kind = freebsd.KIND
    tun_type = 0x17  # IFT_PPP
    cloner_request = iowr("i", 122, 32)
    neighbour_requests = SIOCGIFINFO_IN6, SIOCSIFINFO_FLAGS

    def __init__(self, *, root: bool = True, has_transient: bool = True, has_cloning: bool = True) -> None:
        super().__init__(root=root)
        self.has_cloning = has_cloning
        """The setting net.link.tun.devfs_cloning."""
        self.has_transient = has_transient
        self.neighbour_flags: dict[str, int] = {}
        self.aliases: dict[str, Interface] = {}
        """Devices by their name: those of renamed interfaces keep their first name too."""

    def make(self, name: str) -> Interface:
        if name == "tun":
            name = next(free for number in range(99) if (free := f"tun{number}") not in self.aliases)
        if not re.fullmatch(r"tun[0-9]+", name):
            raise fail(errno.EINVAL)
        if name in self.aliases:
            raise fail(errno.EEXIST)
        self.aliases[name] = super().make(name)
        return self.aliases[name]

    def unmake(self, interface: Interface) -> None:
        assert interface.tun is None or interface.tun.transient, "this would wait until the device is closed"
        super().unmake(interface)
        self.aliases = {name: each for name, each in self.aliases.items() if each is not interface}

    def open_node(self, path: str) -> Tun:
        name = path.removeprefix("/dev/")
        if name == "tun":
            if not self.has_cloning:
                raise fail(errno.ENOENT)
            interface = self.make("tun")
        elif name in self.aliases:
            interface = self.aliases[name]
        else:
            raise fail(errno.ENOENT)
        if interface.tun is not None:
            raise fail(errno.EBUSY)
        interface.tun = FreeBsdTun(self, interface)
        return interface.tun

    def rename(self, interface: Interface, body: bytes) -> None:
        (pointer,) = struct.unpack_from("P", body)
        name = ctypes.string_at(pointer).decode()
        if name in self.interfaces:
            raise fail(errno.EEXIST)
        del self.interfaces[interface.name]
        self.neighbour_flags[name] = self.neighbour_flags.pop(interface.name, ND6_IFF_PERFORMNUD)
        interface.name = name
        self.interfaces[name] = self.aliases[name] = interface

    def accepts_mtu(self, mtu: int) -> bool:
        return 72 <= mtu <= 65535

    def neighbour_request(self, interface: Interface, request: int, argument: bytes) -> bytes:
        self.need_root()
        info = bytearray(argument)
        if request == SIOCGIFINFO_IN6:
            struct.pack_into("I", info, 36, self.neighbour_flags.get(interface.name, ND6_IFF_PERFORMNUD))
        else:
            (self.neighbour_flags[interface.name],) = struct.unpack_from("I", info, 36)
        return bytes(info)

    def add_address(self, interface: Interface, address: IpAddress, prefix: int) -> None:
        super().add_address(interface, address, prefix)
        if isinstance(address, IPv6Address) and not self.neighbour_flags.get(interface.name, 0) & ND6_IFF_NO_DAD:
            interface.tentative.add(address)
