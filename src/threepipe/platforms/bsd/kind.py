"""The numbers and layouts in which macOS and the BSDs differ, as data, and those that they share.

They are those of the systems' headers on 64-bit machines; a test compiles all of them against the headers. The tables
themselves are in a file for each system.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "AF_INET",
    "AF_LINK",
    "CTL_NET",
    "FIONBIO",
    "IFF_UP",
    "IOC_OUT",
    "NAME_SIZE",
    "NET_RT_DUMP",
    "ON",
    "RTA_DST",
    "RTA_GATEWAY",
    "RTA_IFA",
    "RTA_IFP",
    "RTA_NETMASK",
    "RTF_BLACKHOLE",
    "RTF_GATEWAY",
    "RTF_HOST",
    "RTF_REJECT",
    "RTF_STATIC",
    "RTF_UP",
    "RTM_ADD",
    "RTM_DELETE",
    "SOCK_DGRAM",
    "SOCK_RAW",
    "Counters",
    "Kind",
    "Message",
    "ior",
    "iow",
    "iowr",
]

IOC_OUT, _IOC_IN = 0x40000000, 0x80000000


def _request(direction: int, group: str, number: int, size: int) -> int:
    return direction | size << 16 | ord(group) << 8 | number


def ior(group: str, number: int, size: int) -> int:
    """Return the request of an ioctl that returns a structure of `size` bytes: _IOR of <sys/ioccom.h>."""
    return _request(IOC_OUT, group, number, size)


def iow(group: str, number: int, size: int) -> int:
    """Return the request of an ioctl that takes a structure of `size` bytes: _IOW of <sys/ioccom.h>."""
    return _request(_IOC_IN, group, number, size)


def iowr(group: str, number: int, size: int) -> int:
    """Return the request of an ioctl that changes a structure of `size` bytes: _IOWR of <sys/ioccom.h>."""
    return _request(_IOC_IN | IOC_OUT, group, number, size)


AF_INET, AF_LINK = 2, 18
SOCK_DGRAM, SOCK_RAW = 2, 3
CTL_NET = 4
NET_RT_DUMP = 1
FIONBIO = iow("f", 126, 4)
ON = struct.pack("i", 1)
"""The argument of `FIONBIO` and others that switches them on."""
IFF_UP = 0x1
NAME_SIZE = 16  # IFNAMSIZ

# <net/route.h>
RTM_ADD, RTM_DELETE = 1, 2
RTA_DST, RTA_GATEWAY, RTA_NETMASK, RTA_IFP, RTA_IFA = 1, 2, 4, 16, 32
RTF_UP, RTF_GATEWAY, RTF_HOST, RTF_REJECT = 0x1, 0x2, 0x4, 0x8
RTF_STATIC, RTF_BLACKHOLE = 0x800, 0x1000


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the routing socket: its type, its size, and the offsets of its fields.

    Every message starts with its length in two bytes, its version and its type. Socket addresses follow it.
    """

    type: int
    size: int
    index: int
    flags: int
    addrs: int


class Counters(NamedTuple):
    """Offsets in a message about an interface, most of them in its `struct if_data`; counts have 64 bits."""

    mtu: int
    ipackets: int
    ierrors: int
    opackets: int
    ibytes: int
    obytes: int
    dropped: int
    """Packets that found the queue before the program full."""
    dropped_has_refused: bool = False
    """True if that count also has the packets of the program that found no room (ENOBUFS)."""
    sent_twice: bool = False
    """True if each packet of the program is counted twice."""
    mtu_format: struct.Struct = struct.Struct("I")
    dropped_format: struct.Struct = struct.Struct("Q")


class Kind(NamedTuple):
    """One system's numbers."""

    name: str
    """The name of the system in texts."""
    driver: str
    """The start of the names of its interfaces; a number follows."""
    inet6: int
    """AF_INET6; AF_INET is 2 everywhere."""
    route: int
    """PF_ROUTE"""
    ifreq: int
    """Bytes of `struct ifreq`, whose union is at offset 16."""
    mtu: tuple[int, int]
    """The numbers of SIOCGIFMTU and SIOCSIFMTU."""
    add_ipv4: tuple[int, int]
    """The number of SIOCAIFADDR, and the bytes of `struct in_aliasreq`."""
    add_ipv6: tuple[int, int]
    """The number of SIOCAIFADDR_IN6, and the bytes of `struct in6_aliasreq`."""
    alignment: int
    """Socket addresses in messages have a multiple of these bytes."""
    sockaddr_dl: int
    """Bytes of `struct sockaddr_dl`."""
    version: int
    """RTM_VERSION"""
    routes: Message
    """RTM_GET and its like: `struct rt_msghdr`."""
    sequence: int
    """Offset of rtm_seq in it."""
    links: Message
    """RTM_IFINFO: `struct if_msghdr`."""
    counters: Counters
    addresses: tuple[Message, ...]
    """RTM_NEWADDR: `struct ifa_msghdr`; the present one, then older ones."""
    listings: tuple[int, ...]
    """NET_RT_IFLIST; the present one, then older ones."""
    has_header_length: bool = False
    """True if messages tell the size of their own header, in two bytes at offset 4."""
    routes_by_address: bool = False
    """True if a route to an interface names an address of the interface, as `route add -iface` does there."""
    minds_host_routes: bool = False
    """True if the system must not get an address of IPv4 that a route leads to: it would use freed memory."""
    scoped: int = 0
    """RTF_IFSCOPE: the flag of routes for the sockets of one interface alone; 0 if the system has none."""
    tells_of_removal: bool = True
    """False if the system wakes no reader when another program removes the interface."""
    largest_mtu: int = 65535
    """Bytes: the largest MTU of its interfaces."""
    set_name: int | None = None
    """The request SIOCSIFNAME, where interfaces can have any name."""
    point_to_point: int | None = None
    """The IFT_ type of its interfaces, where names do not tell which are TUN interfaces."""

    @property
    def get_flags(self) -> int:
        """SIOCGIFFLAGS."""
        return iowr("i", 17, self.ifreq)

    @property
    def set_flags(self) -> int:
        """SIOCSIFFLAGS."""
        return iow("i", 16, self.ifreq)

    @property
    def get_mtu(self) -> int:
        """SIOCGIFMTU."""
        return iowr("i", self.mtu[0], self.ifreq)

    @property
    def set_mtu(self) -> int:
        """SIOCSIFMTU."""
        return iow("i", self.mtu[1], self.ifreq)

    @property
    def destroy(self) -> int:
        """SIOCIFDESTROY."""
        return iow("i", 121, self.ifreq)

    @property
    def add_address(self) -> int:
        """SIOCAIFADDR."""
        return iow("i", *self.add_ipv4)

    @property
    def add_address_in6(self) -> int:
        """SIOCAIFADDR_IN6."""
        return iow("i", *self.add_ipv6)

    @property
    def remove_address(self) -> int:
        """SIOCDIFADDR."""
        return iow("i", 25, self.ifreq)

    @property
    def remove_address_in6(self) -> int:
        """SIOCDIFADDR_IN6, which takes a `struct in6_ifreq`."""
        return iow("i", 25, IN6_IFREQ)


IN6_IFREQ = 288
"""Bytes of `struct in6_ifreq`."""
