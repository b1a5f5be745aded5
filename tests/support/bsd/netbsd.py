"""A model of NetBSD's if_tun: its answers are those that 7.99.34's gave, errno by errno."""

import errno
import re
import struct

from tests.support.bsd.kernel import Interface, Kernel, Tun, fail
from threepipe.platforms.bsd import netbsd
from threepipe.platforms.bsd.kind import iow

__all__ = ["NetBsdKernel"]

TUNSIFHEAD = iow("t", 66, 4)
TUNSLMODE = iow("t", 87, 4)
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
        if len(record) < 4 or len(record) - 4 > self.interface.mtu:
            raise fail(errno.EIO)
        if not self.header or record[:4] not in (INET, INET6):
            raise fail(errno.EAFNOSUPPORT)
        self.arrive(record[4:])
        return len(record)


class NetBsdKernel(Kernel):
    """NetBSD, with device nodes for `nodes` interfaces."""

    kind = netbsd.KIND
    cloner_request = iow("i", 122, 144)

    def __init__(self, *, root: bool = True, nodes: int = 4) -> None:
        super().__init__(root=root)
        self.max_mtu = 1500
        self.nodes = nodes

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
