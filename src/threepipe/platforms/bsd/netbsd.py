"""NetBSD: its numbers and its TUN driver.

/dev/tunN is interface tunN, which stays when the device is closed, with its addresses, and is destroyed by name.
"""

from collections.abc import Iterable
from ipaddress import ip_interface
from struct import Struct

from threepipe.errors import AdapterBusy, NameTaken
from threepipe.platforms.bsd.driver import Opened, node, numbers, set_header, taken_name
from threepipe.platforms.bsd.interface import Interfaces
from threepipe.platforms.bsd.kind import Counters, Kind, Message, iow
from threepipe.platforms.bsd.port import BsdPort
from threepipe.platforms.bsd.system import System
from threepipe.settings import Address

__all__ = ["KIND", "NetBsdDriver"]

KIND = Kind(
    name="NetBSD",
    driver="tun",
    inet6=24,
    route=34,
    ifreq=144,
    mtu=(126, 127),
    add_ipv4=(26, 64),
    add_ipv6=(107, 128),
    alignment=8,
    sockaddr_dl=32,
    version=4,
    routes=Message(type=4, size=120, index=4, flags=8, addrs=12),
    sequence=20,
    links=Message(type=20, size=152, index=12, flags=8, addrs=4),
    counters=Counters(
        mtu=24,
        ipackets=48,
        ierrors=56,
        opackets=64,
        ibytes=88,
        obytes=96,
        dropped=80,  # ifi_collisions, of all counters.
        dropped_has_refused=True,
        mtu_format=Struct("Q"),
    ),
    addresses=(
        Message(type=22, size=32, index=4, flags=8, addrs=12),
        Message(type=12, size=24, index=16, flags=8, addrs=4),  # RTM_ONEWADDR, before NetBSD 8.
    ),
    listings=(6, 5),  # NET_RT_IFLIST, and the one before NetBSD 8.
    routes_by_address=True,
    minds_host_routes=True,
    tells_of_removal=False,
    largest_mtu=1500,
)

SIOCIFCREATE = iow("i", 122, KIND.ifreq)
TUNSIFHEAD = iow("t", 66, 4)
_SPARE = ip_interface("fe80::ffff:ffff:ffff:fffe/128")


class NetBsdDriver:
    """if_tun of NetBSD."""

    kind = KIND
    persists = True
    port = BsdPort

    def create(self, system: System, interfaces: Interfaces, name: str, taken: set[str]) -> Opened:
        for number in numbers(KIND, name, taken):
            own = f"tun{number}"
            try:
                interfaces.create(own, SIOCIFCREATE)  # Opening the device would take one that exists too.
            except NameTaken:
                continue
            try:
                return self._open(system, own, removes=True)
            except AdapterBusy:
                continue  # Another program was faster, and has the interface now.
            except BaseException:
                interfaces.destroy(own)
                raise
        raise taken_name(KIND, name)

    def attach(self, system: System, name: str) -> Opened:
        return self._open(system, name, removes=False)

    def _open(self, system: System, name: str, *, removes: bool) -> Opened:
        descriptor = node(system, KIND, name)
        try:
            set_header(system, descriptor, TUNSIFHEAD)
        except BaseException:
            system.close(descriptor)
            raise
        return Opened(descriptor, name, removes)

    def set_offload(self, system: System, descriptor: int) -> bool:
        """Return False: the driver has no superpackets."""
        return False

    def name_of(self, system: System, opened: Opened) -> str:
        return opened.name

    def before_up(self, interfaces: Interfaces, name: str, addresses: Iterable[Address]) -> None:
        """Set the addresses of IPv6 again, else the system checks them for duplicates for a second or two.

        An interface that goes down detaches its addresses, and those of IPv6 are checked when it comes up, unless they
        were set again meanwhile. Kernels before July 2016 mark an interface up if its only such address is set, without
        telling IPv4, hence the spare one.
        """
        own = [address for address in addresses if not address.is_link_local]
        if not own:
            return
        interfaces.add_address(name, _SPARE)
        try:
            for address in own:
                interfaces.add_address(name, address)
        finally:
            interfaces.remove_address(name, _SPARE)

    def make_room(self, system: System, descriptor: int, capacity: int, mtu: int) -> None:
        """Do nothing: the queue holds 256 packets."""
