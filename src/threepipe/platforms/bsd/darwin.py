"""macOS: its numbers and utun, which is a socket and no device.

A unit of the kernel control "com.apple.net.utun_control" is an interface, which goes with the socket.
"""

import errno
import struct
from collections.abc import Iterable

from threepipe.errors import AdapterError, AdapterNotFound, AdapterUnavailable, PermissionDenied
from threepipe.platforms.bsd.bundled import BundledPort
from threepipe.platforms.bsd.driver import Opened, numbers, taken_name
from threepipe.platforms.bsd.interface import Interfaces
from threepipe.platforms.bsd.kind import FIONBIO, ON, SOCK_DGRAM, Counters, Kind, Message, iowr
from threepipe.platforms.bsd.port import FAMILY_SIZE
from threepipe.platforms.bsd.system import System
from threepipe.settings import Address

__all__ = ["KIND", "DarwinDriver"]

KIND = Kind(
    name="macOS",
    driver="utun",
    inet6=30,
    route=17,
    ifreq=32,
    mtu=(51, 52),
    add_ipv4=(26, 64),
    add_ipv6=(26, 128),
    alignment=4,
    sockaddr_dl=20,
    version=5,
    routes=Message(type=4, size=92, index=4, flags=8, addrs=12),
    sequence=20,
    links=Message(type=18, size=160, index=12, flags=8, addrs=4),  # RTM_IFINFO2, whose counters have 64 bits.
    counters=Counters(
        mtu=40,
        ipackets=56,
        ierrors=64,
        opackets=72,
        ibytes=96,
        obytes=104,
        dropped=24,  # ifm_snd_drops
        sent_twice=True,  # utun hands its count to ifnet_input, and counts again on the way to IP.
        dropped_format=struct.Struct("I"),
    ),
    addresses=(Message(type=12, size=20, index=12, flags=8, addrs=4),),
    listings=(6,),  # NET_RT_IFLIST2
    scoped=0x1000000,
)

AF_SYSTEM, SYSPROTO_CONTROL = 32, 2
SOL_SOCKET, SO_RCVBUF = 0xFFFF, 0x1002
CTLIOCGINFO = iowr("N", 3, 100)
UTUN_CONTROL_NAME = b"com.apple.net.utun_control"
UTUN_OPT_IFNAME, UTUN_OPT_MAX_PENDING_PACKETS = 2, 16
_NAME_SIZE = 16
_USUAL_MTU = 1500
_BUFFER = 512 << 10
"""Bytes of packets that utun's socket keeps for the program by default."""


class DarwinDriver:
    """utun."""

    kind = KIND
    persists = False
    port = BundledPort

    def create(self, system: System, interfaces: Interfaces, name: str, taken: set[str]) -> Opened:
        (unit, *_) = [0] if "%d" in name else [number + 1 for number in numbers(KIND, name, taken)]
        try:
            descriptor = system.socket(AF_SYSTEM, SOCK_DGRAM, SYSPROTO_CONTROL)
        except OSError as error:
            raise AdapterUnavailable(error.errno, f"this system has no utun: {error.strerror}") from None
        try:
            reply = system.ioctl(descriptor, CTLIOCGINFO, bytes(4) + UTUN_CONTROL_NAME.ljust(96, b"\0"))
            system.connect_control(descriptor, struct.unpack_from("I", reply)[0], unit)
            system.ioctl(descriptor, FIONBIO, ON)
            found = system.get_option(descriptor, SYSPROTO_CONTROL, UTUN_OPT_IFNAME, _NAME_SIZE)
        except OSError as error:
            system.close(descriptor)
            raise _refused(error, name) from None
        return Opened(descriptor, found.partition(b"\0")[0].decode(), removes=False)

    def attach(self, system: System, name: str) -> Opened:
        raise AdapterNotFound(
            errno.ENODEV, f"{name} cannot be opened: adapters of macOS end with their program; create one"
        )

    def set_offload(self, system: System, descriptor: int) -> bool:
        """Return False: utun has no superpackets."""
        return False

    def name_of(self, system: System, opened: Opened) -> str:
        return opened.name

    def before_up(self, interfaces: Interfaces, name: str, addresses: Iterable[Address]) -> None:
        """Do nothing: utun has no duplicate address detection."""

    def make_room(self, system: System, descriptor: int, capacity: int, mtu: int) -> None:
        """Raise the number of waiting packets, which is 1 by default, as far as they fit into the socket's buffer.

        Beyond that, utun would drop packets without counting them; so others wait in the interface's queue.
        """
        try:
            system.set_option(descriptor, SOL_SOCKET, SO_RCVBUF, struct.pack("i", capacity))
        except OSError:
            capacity = min(capacity, _BUFFER)  # More than kern.ipc.maxsockbuf.
        packets = struct.pack("i", capacity // (max(mtu, _USUAL_MTU) + FAMILY_SIZE) or 1)
        system.set_option(descriptor, SYSPROTO_CONTROL, UTUN_OPT_MAX_PENDING_PACKETS, packets)


def _refused(error: OSError, name: str) -> AdapterError:
    code = error.errno or 0
    if code == errno.EBUSY:
        return taken_name(KIND, name)
    if code in (errno.EPERM, errno.EACCES):
        return PermissionDenied(code, f"creating {name} needs root; run as root, for example with sudo")
    if code == errno.ENOENT:
        return AdapterUnavailable(code, "this kernel has no utun; MemoryAdapter works everywhere")
    return AdapterUnavailable(code, f"{name} cannot be created: {error.strerror}")
