"""A model of OpenBSD's tun(4), after its headers and the text of its sources: revision 1.252, and older ones.

With TUNSCAP it cuts superpackets and completes checksums as the system's network stack would.
"""

import errno
import re
import struct

from tests.support.bsd.interfaces import Tun, fail
from tests.support.bsd.kernel import Kernel
from threepipe.core.superpacket import HEADER, split
from threepipe.platforms.bsd import openbsd
from threepipe.platforms.bsd.kind import FIONBIO, IFF_UP, iow

__all__ = ["Marked", "OpenBsdKernel"]

INET, INET6 = struct.pack("!I", 2), struct.pack("!I", 24)
TUNSCAP = iow("t", 196, 4)
TCP_MSS, IPV4_CSUM, TCP_CSUM, UDP_CSUM = 1 << 5, 1 << 8, 1 << 9, 1 << 10
OFFLOADS = 0x1 | 0x2 | 0x4 | 0x80 | 0x100 | 0x1000 | 0x2000 | 0x4000 | 0x10 | 0x20 | 0x40
HDR = struct.Struct("HHHH")
LONGEST = 65536  # MAXMCLBYTES


class Marked(bytes):
    """A packet of the stack with a `tun_hdr` that is not all zero."""

    header = bytes(8)

    @classmethod
    def make(cls, packet: bytes, flags: int, mss: int = 0) -> "Marked":
        marked = cls(packet)
        marked.header = HDR.pack(flags, 0, 0, mss)
        return marked


class OpenBsdTun(Tun):
    """An open /dev/tunN."""

    stays = False
    header = False

    def ioctl(self, request: int, argument: bytes) -> bytes:
        assert isinstance(self.kernel, OpenBsdKernel)
        if request == TUNSCAP and self.kernel.has_header:
            if struct.unpack("I", argument)[0] & ~OFFLOADS:
                raise fail(errno.EINVAL)
            self.header = True
            return argument
        if request == FIONBIO and self.kernel.has_header:
            self.blocking = False  # It was opened with O_NONBLOCK.
            raise fail(errno.ENOTTY)
        return super().ioctl(request, argument)

    def read(self) -> bytes:
        if self.interface is None:
            raise fail(errno.EIO)
        packet = self.take()
        family = INET if packet[0] >> 4 == 4 else INET6
        return (getattr(packet, "header", bytes(8)) if self.header else b"") + family + packet

    def write(self, record: bytes) -> int:
        assert isinstance(self.kernel, OpenBsdKernel)
        if self.interface is None:
            raise fail(errno.EIO)
        front = 12 if self.header else 4
        longest = self.kernel.longest if self.kernel.has_header else self.interface.mtu
        if len(record) < front or len(record) - front > longest:
            raise fail(errno.EMSGSIZE)
        flags, _, _, mss = HDR.unpack_from(record) if self.header else (0, 0, 0, 0)
        if flags & TCP_CSUM and flags & UDP_CSUM:
            raise fail(errno.EINVAL)
        if record[front - 4 : front] in (INET, INET6):  # Others are dropped.
            for packet in complete(record[front:], flags, mss):
                self.arrive(packet)
        return len(record)

    def last_close(self) -> None:
        if self.interface is not None and not self.stays:
            self.kernel.unmake(self.interface)


def complete(packet: bytes, flags: int, mss: int) -> list[bytes]:
    """Return the packets that a record of the program stands for, with all of their checksums."""
    if not flags:
        return [packet]
    start = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
    kind = (1 if packet[0] >> 4 == 4 else 4) if flags & TCP_MSS else 0
    header = HEADER.pack(1, kind, 0, mss, start, 16 if flags & TCP_CSUM else 6)
    return [bytes(each) for each in split([memoryview(bytearray(header + packet))])]


class OpenBsdKernel(Kernel):
    """OpenBSD, with device nodes for `nodes` interfaces; older releases lack the `tun_hdr`."""

    kind = openbsd.KIND
    cloner_request = iow("i", 122, 32)

    def __init__(self, *, root: bool = True, nodes: int = 4, has_header: bool = True) -> None:
        super().__init__(root=root)
        self.max_mtu = 16384
        self.nodes = nodes
        self.has_header = has_header
        self.longest = LONGEST

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
