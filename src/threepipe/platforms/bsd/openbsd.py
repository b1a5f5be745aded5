"""OpenBSD: its numbers and its TUN driver.

/dev/tunN is interface tunN: opening it makes the interface, for one program, and closing destroys it. One that was made
by ifconfig stays. The header of four bytes is always there. TUNSCAP adds a `tun_hdr`; see the module of that name.
"""

import struct
from collections.abc import Iterable

from threepipe.platforms.bsd.driver import Opened, node, numbers, open_node
from threepipe.platforms.bsd.interface import Interfaces
from threepipe.platforms.bsd.kind import Counters, Kind, Message, iow
from threepipe.platforms.bsd.port import BsdPort
from threepipe.platforms.bsd.system import System
from threepipe.settings import Address

__all__ = ["KIND", "OpenBsdDriver"]

KIND = Kind(
    name="OpenBSD",
    driver="tun",
    inet6=24,
    route=17,
    ifreq=32,
    mtu=(126, 127),
    add_ipv4=(26, 64),
    add_ipv6=(26, 128),
    alignment=8,
    sockaddr_dl=32,
    version=5,
    routes=Message(type=4, size=96, index=6, flags=16, addrs=12),
    sequence=28,
    links=Message(type=14, size=168, index=6, flags=16, addrs=12),
    counters=Counters(mtu=28, ipackets=48, ierrors=56, opackets=64, ibytes=88, obytes=96, dropped=128),
    addresses=(Message(type=12, size=24, index=6, flags=16, addrs=12),),
    listings=(3,),
    has_header_length=True,
    routes_by_address=True,
    largest_mtu=16384,
)


TUNSCAP = iow("t", 196, 4)
# <net/if.h>
IFCAP_CSUM_TCPv4, IFCAP_CSUM_UDPv4 = 0x2, 0x4
IFCAP_CSUM_TCPv6, IFCAP_CSUM_UDPv6 = 0x80, 0x100
IFCAP_TSOv4, IFCAP_TSOv6 = 0x1000, 0x2000
OFFLOADS = IFCAP_CSUM_TCPv4 | IFCAP_CSUM_UDPv4 | IFCAP_CSUM_TCPv6 | IFCAP_CSUM_UDPv6 | IFCAP_TSOv4 | IFCAP_TSOv6
"""The work that the system may leave to the program: not IPv4's header checksum, which costs the system little."""


class OpenBsdDriver:
    """if_tun of OpenBSD."""

    kind = KIND
    persists = False
    port = BsdPort

    def create(self, system: System, interfaces: Interfaces, name: str, taken: set[str]) -> Opened:
        descriptor, own = open_node(system, KIND, (f"tun{number}" for number in numbers(KIND, name, taken)))
        return Opened(descriptor, own, removes=False)

    def attach(self, system: System, name: str) -> Opened:
        return Opened(node(system, KIND, name), name, removes=False)

    def set_offload(self, system: System, descriptor: int) -> bool:
        """Have a `tun_hdr` before each packet, with superpackets of TCP, where the release has TUNSCAP."""
        try:
            system.ioctl(descriptor, TUNSCAP, struct.pack("I", OFFLOADS))
        except OSError:
            return False  # ENOTTY on a release without it.
        return True

    def name_of(self, system: System, opened: Opened) -> str:
        return opened.name

    def before_up(self, interfaces: Interfaces, name: str, addresses: Iterable[Address]) -> None:
        """Do nothing: an address that was given while the interface was down is not checked."""

    def make_room(self, system: System, descriptor: int, capacity: int, mtu: int) -> None:
        """Do nothing: the length of the queue is the system's choice."""
