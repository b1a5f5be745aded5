"""A model of OpenBSD's tun(4), after its headers and the text of its sources."""

import errno
import re
import struct

from tests.support.bsd.kernel import Kernel, Tun, fail
from threepipe.platforms.bsd import openbsd
from threepipe.platforms.bsd.kind import IFF_UP, iow

__all__ = ["OpenBsdKernel"]

INET, INET6 = struct.pack("!I", 2), struct.pack("!I", 24)


class OpenBsdTun(Tun):
    """An open /dev/tunN."""

    stays = False

    def read(self) -> bytes:
        if self.interface is None:
            raise fail(errno.EIO)
        packet = self.take()
        return (INET if packet[0] >> 4 == 4 else INET6) + packet

    def write(self, record: bytes) -> int:
        if self.interface is None:
            raise fail(errno.EIO)
        if len(record) < 4 or len(record) - 4 > self.interface.mtu:
            raise fail(errno.EMSGSIZE)
        if record[:4] not in (INET, INET6):
            raise fail(errno.EAFNOSUPPORT)
        if not self.interface.up:
            raise fail(errno.EHOSTDOWN)
        self.arrive(record[4:])
        return len(record)

    def last_close(self) -> None:
        if self.interface is not None and not self.stays:
            self.kernel.unmake(self.interface)


class OpenBsdKernel(Kernel):
    """OpenBSD, with device nodes for `nodes` interfaces."""

    kind = openbsd.KIND
    cloner_request = iow("i", 122, 32)

    def __init__(self, *, root: bool = True, nodes: int = 4) -> None:
        super().__init__(root=root)
        self.max_mtu = 16384
        self.nodes = nodes

    def open_node(self, path: str) -> Tun:
        found = re.fullmatch(r"/dev/(tun([0-9]+))", path)
        if not found or int(found[2]) >= self.nodes:
            raise fail(errno.ENOENT)
        interface = self.interfaces.get(found[1])
        stays = interface is not None
        interface = interface or self.make(found[1])
        if interface.tun is not None:
            raise fail(errno.EBUSY)
        interface.flags |= IFF_UP  # Opening takes it up.
        tun = interface.tun = OpenBsdTun(self, interface)
        tun.stays = stays
        return tun
