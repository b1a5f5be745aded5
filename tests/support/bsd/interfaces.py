"""Parts of the kernels' models: an interface, an open descriptor of its packets, and a socket for requests."""

import errno
import os
import struct
from collections import deque
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from threepipe.net.doorbell import Doorbell
from threepipe.platforms.bsd.kind import FIONBIO, IFF_UP
from threepipe.settings import Network

if TYPE_CHECKING:
    from tests.support.bsd.kernel import Kernel

__all__ = ["Control", "Interface", "IpAddress", "Tun", "fail"]

IFF_POINTOPOINT = 0x10
QUEUE = 256
"""Packets that an interface keeps for the program."""

IpAddress = IPv4Address | IPv6Address


def fail(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class Interface:
    """An interface: its state in the kernel, and the packets that wait or have arrived."""

    def __init__(self, name: str, index: int, kind_of: int) -> None:
        self.name = name
        self.index = index
        self.type = kind_of
        self.flags = IFF_POINTOPOINT
        self.mtu = 1500
        self.addresses: dict[IpAddress, int] = {}
        self.routes: dict[Network, tuple[int, bytes]] = {}
        self.queue: deque[bytes] = deque()
        self.limit = QUEUE
        self.arrived: list[bytes] = []
        self.counts = dict.fromkeys(("ipackets", "ierrors", "opackets", "ibytes", "obytes", "dropped"), 0)
        self.tun: Tun | None = None
        self.ready = False
        """True once it has had an address while a program had it open."""
        self.detached: set[IpAddress] = set()
        """Addresses that count for nothing until the link comes up."""
        self.tentative: set[IpAddress] = set()
        """Addresses of IPv6 for which duplicate address detection runs, so that packets to them are dropped."""

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)


class Tun:
    """An open descriptor of an interface's packets. Subclasses are the systems' drivers."""

    def __init__(self, kernel: "Kernel", interface: Interface | None) -> None:
        self.kernel = kernel
        self.interface = interface
        self.bell = Doorbell()  # Its descriptor can be waited for, and is readable while packets wait.
        self.blocking = True
        self.transient = False

    def ioctl(self, request: int, argument: bytes) -> bytes:
        if request == FIONBIO:
            self.blocking = not struct.unpack("i", argument)[0]
            return argument
        raise fail(errno.ENOTTY)

    def read(self) -> bytes:
        """Return a record: a header and a packet."""
        raise NotImplementedError

    def write(self, record: bytes) -> int:
        """Take a record."""
        raise NotImplementedError

    def take(self) -> bytes:
        """Return the first packet that waits."""
        assert self.interface is not None
        if not self.interface.queue:
            assert not self.blocking, "this read would block for ever"
            raise fail(errno.EAGAIN)
        packet = self.interface.queue.popleft()
        if not self.interface.queue:
            self.bell.clear()
        return packet

    def arrive(self, packet: bytes) -> None:
        """Hand a packet of the program to the network stack."""
        interface = self.interface
        assert interface is not None
        interface.counts["ipackets"] += 1
        interface.counts["ibytes"] += len(packet)
        interface.arrived.append(packet)
        self.kernel.changed.notify_all()

    def last_close(self) -> None:
        """Act as the driver when the last descriptor is closed."""


class Control:
    """A socket that is used for requests alone."""

    def __init__(self, family: int, protocol: int) -> None:
        self.family = family
        self.protocol = protocol
        self.told = 0
        """Messages that wait on a routing socket."""
        self.bell = Doorbell()
