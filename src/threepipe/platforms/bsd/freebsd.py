"""FreeBSD: its numbers and its TUN driver.

/dev/tun makes an interface and opens it. TUNSTRANSIENT lets it go with the last descriptor, also after a kill; older
releases lack that, and the interface is destroyed by name. Interfaces can have any name.
"""

import ctypes
import errno
import itertools
import struct
from collections.abc import Iterable

from threepipe.errors import AdapterError, AdapterUnavailable, NameTaken
from threepipe.platforms.bsd.driver import Opened, node, own_name, set_header, taken_name
from threepipe.platforms.bsd.interface import Interfaces, explained
from threepipe.platforms.bsd.kind import NAME_SIZE, ON, Counters, Kind, Message, ior, iow, iowr
from threepipe.platforms.bsd.port import BsdPort
from threepipe.platforms.bsd.system import System
from threepipe.settings import MAX_NAME, Address

__all__ = ["KIND", "FreeBsdDriver"]

KIND = Kind(
    name="FreeBSD",
    driver="tun",
    inet6=28,
    route=17,
    ifreq=32,
    mtu=(51, 52),
    add_ipv4=(43, 68),
    add_ipv6=(27, 136),
    alignment=8,
    sockaddr_dl=54,
    version=5,
    routes=Message(type=4, size=152, index=4, flags=8, addrs=12),
    sequence=20,
    links=Message(type=14, size=168, index=12, flags=8, addrs=4),
    counters=Counters(mtu=24, ipackets=40, ierrors=48, opackets=56, ibytes=80, obytes=88, dropped=120),
    addresses=(Message(type=12, size=20, index=12, flags=8, addrs=4),),
    listings=(3,),
    set_name=iow("i", 40, 32),
    point_to_point=0x17,  # IFT_PPP
)

SIOCIFCREATE = iowr("i", 122, KIND.ifreq)
TUNSIFHEAD = iow("t", 96, 4)
TUNSTRANSIENT = iow("t", 98, 4)
TUNGIFNAME = ior("t", 93, KIND.ifreq)
IN6_NDIREQ = 72
"""Bytes of `struct in6_ndireq`."""
SIOCGIFINFO_IN6, SIOCSIFINFO_FLAGS = iowr("i", 108, IN6_NDIREQ), iowr("i", 87, IN6_NDIREQ)
ND6_IFF_NO_DAD = 0x100
ND_FLAGS = 36
"""Offset of ndi.flags in `struct in6_ndireq`."""


class FreeBsdDriver:
    """if_tuntap."""

    kind = KIND
    persists = False  # Closing the device takes the interface's addresses.
    port = BsdPort

    def create(self, system: System, interfaces: Interfaces, name: str, taken: set[str]) -> Opened:
        if name in taken:
            raise taken_name(KIND, name)
        is_own = own_name(KIND, name)
        descriptor, first = _create(system, interfaces, name) if is_own else _clone(system, interfaces)
        try:
            first = first or self._name(system, descriptor)
            transient = self._goes_at_close(system, descriptor)  # It undoes everything from here on.
            set_header(system, descriptor, TUNSIFHEAD)
            if not is_own and name != "tun%d":
                _rename(interfaces, first, name, taken)
            _stop_detection(interfaces, self._name(system, descriptor))
            return Opened(descriptor, self._name(system, descriptor), removes=not transient)
        except BaseException:
            system.close(descriptor)
            _destroy(interfaces, first)
            raise

    def attach(self, system: System, name: str) -> Opened:
        descriptor = node(system, KIND, name)  # A renamed interface has a device of its new name too.
        try:
            set_header(system, descriptor, TUNSIFHEAD)
            return Opened(descriptor, self._name(system, descriptor), removes=False)
        except BaseException:
            system.close(descriptor)
            raise

    def set_offload(self, system: System, descriptor: int) -> bool:
        """Return False: the driver has no superpackets."""
        return False

    def name_of(self, system: System, opened: Opened) -> str:
        try:
            return self._name(system, opened.descriptor)
        except AdapterError:
            return opened.name  # It was removed.

    def before_up(self, interfaces: Interfaces, name: str, addresses: Iterable[Address]) -> None:
        """Do nothing: the interface has no duplicate address detection."""

    def make_room(self, system: System, descriptor: int, capacity: int, mtu: int) -> None:
        """Do nothing: the length of the queue is a setting of the system, net.link.ifqmaxlen."""

    def _name(self, system: System, descriptor: int) -> str:
        try:
            reply = system.ioctl(descriptor, TUNGIFNAME, bytes(KIND.ifreq))
        except OSError as error:
            raise explained(error, "the adapter") from None
        return reply[:NAME_SIZE].partition(b"\0")[0].decode(errors="surrogateescape")

    def _goes_at_close(self, system: System, descriptor: int) -> bool:
        try:
            system.ioctl(descriptor, TUNSTRANSIENT, ON)
        except OSError as error:
            if error.errno != errno.ENOTTY:
                raise explained(error, "the adapter") from None
            return False
        return True


def _clone(system: System, interfaces: Interfaces) -> tuple[int, str]:
    """Return the descriptor of a new interface, and the name that it has for now."""
    try:
        return node(system, KIND, "tun"), ""
    except AdapterUnavailable as error:
        if error.errno != errno.ENOENT:
            raise
    return _create(system, interfaces, "tun")  # /dev/tun is missing where net.link.tun.devfs_cloning is 0.


def _create(system: System, interfaces: Interfaces, name: str) -> tuple[int, str]:
    """Create the interface `name`, or for "tun" the first free one; return its device's descriptor, and its name."""
    reply = interfaces.create(name, SIOCIFCREATE)
    made = reply[:NAME_SIZE].partition(b"\0")[0].decode()
    try:
        return node(system, KIND, made), made
    except BaseException:
        interfaces.destroy(made)
        raise


def _rename(interfaces: Interfaces, first: str, name: str, taken: set[str]) -> None:
    """Rename the interface; a template becomes the first free name."""
    names = (name.replace("%d", str(number)) for number in itertools.count()) if "%d" in name else iter([name])
    for each in names:
        if len(each.encode()) > MAX_NAME:
            break
        if each in taken:
            continue
        text = ctypes.create_string_buffer(each.encode())
        try:
            interfaces.rename_via_pointer(first, struct.pack("P", ctypes.addressof(text)))
        except NameTaken:
            continue
        return
    raise taken_name(KIND, name)


def _stop_detection(interfaces: Interfaces, name: str) -> None:
    """Have no duplicate address detection on the interface, as ifconfig's `no_dad` does."""
    try:
        info = bytearray(interfaces.request(name, SIOCGIFINFO_IN6, bytes(IN6_NDIREQ - NAME_SIZE), KIND.inet6))
        (flags,) = struct.unpack_from("I", info, ND_FLAGS)
        struct.pack_into("I", info, ND_FLAGS, flags | ND6_IFF_NO_DAD)
        interfaces.request(name, SIOCSIFINFO_FLAGS, bytes(info[NAME_SIZE:]), KIND.inet6)
    except AdapterError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
            raise  # Without IPv6 no address is detected.


def _destroy(interfaces: Interfaces, name: str) -> None:
    try:
        interfaces.destroy(name)
    except AdapterError:
        pass  # It went when its descriptor was closed.
