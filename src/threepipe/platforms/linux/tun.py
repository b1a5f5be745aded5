"""The TUN driver's file, /dev/net/tun, and its ioctls. Knows no netlink and no sessions.

The constants are those of <linux/if_tun.h>; a test compares them with the header.
"""

import sys

assert sys.platform == "linux"

import array
import enum
import errno
import fcntl
import io
import itertools
import os
import socket
import struct
from contextlib import suppress

from threepipe.core.superpacket import HEADER_SIZE, MAX_RECORD
from threepipe.core.tunnel import WIDE_HEADER_SIZE
from threepipe.errors import (
    AdapterBusy,
    AdapterError,
    AdapterGone,
    AdapterNotFound,
    AdapterUnavailable,
    LinkDown,
    NameTaken,
    PermissionDenied,
)
from threepipe.platforms.linux.privilege import become, refused_node
from threepipe.settings import MAX_NAME

__all__ = [
    "Offload",
    "attach",
    "attach_queue",
    "control",
    "discard",
    "features",
    "is_driver",
    "is_plain",
    "keeps_offload",
    "name_of",
    "namespace_of",
    "open_tun",
    "prepare",
    "read_name",
    "refused",
    "reset",
    "set_carrier",
    "set_offload",
    "switch",
]

TUN_PATH = "/dev/net/tun"

TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC
TUNSETGROUP = 0x400454CE
TUNSETOFFLOAD = 0x400454D0
TUNGETFEATURES = 0x800454CF
TUNGETIFF = 0x800454D2
TUNSETSNDBUF = 0x400454D4
TUNSETVNETHDRSZ = 0x400454D8
TUNSETQUEUE = 0x400454D9
TUNSETCARRIER = 0x400454E2
TUNGETDEVNETNS = 0x54E3

IFF_TUN = 0x0001
IFF_NO_CARRIER = 0x0040
IFF_BACKPRESSURE = 0x0080
IFF_MULTI_QUEUE = 0x0100
IFF_DETACH_QUEUE = 0x0400
IFF_PERSIST = 0x0800
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFF_TUN_EXCL = 0x8000

TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
TUN_F_USO4 = 0x20
TUN_F_USO6 = 0x40
TUN_F_UDP_TUNNEL_GSO = 0x80
TUN_F_UDP_TUNNEL_GSO_CSUM = 0x100

SIOCETHTOOL = 0x8946  # <linux/sockios.h>
ETHTOOL_GTXCSUM = 0x16  # <linux/ethtool.h>
_NO_LIMIT = 0x7FFFFFFF  # The driver's default, INT_MAX.

IFREQ = struct.Struct("16sH22x")  # struct ifreq: the name, and the flags from its union.


class Offload(enum.Enum):
    """The kinds of superpackets that an interface takes. With NONE, packets have no virtio header either."""

    NONE = 0
    TCP = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
    TCP_AND_UDP = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6
    TUNNELS = TCP_AND_UDP | TUN_F_UDP_TUNNEL_GSO | TUN_F_UDP_TUNNEL_GSO_CSUM
    """Those of UDP tunnels, too, which the kernel only hands over (see `threepipe.core.tunnel`)."""

    @property
    def udp(self) -> bool:
        """True if superpackets of UDP pass."""
        return bool(self.value & TUN_F_USO4)

    @property
    def wide(self) -> bool:
        """True if virtio headers are wide."""
        return self is Offload.TUNNELS


def open_tun() -> io.FileIO:
    """Open the TUN driver's file: non-blocking, not inherited, and not attached to an interface yet.

    Raises `AdapterUnavailable` or `PermissionDenied`.
    """
    try:
        return io.FileIO(TUN_PATH, "r+", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise refused_node(TUN_PATH, error.errno) from None
        raise _explained(error, _NO_DRIVER, TUN_PATH) from None


def attach(tun: io.FileIO, name: str, *, create: bool, offload: bool, several: bool, information: bool = False) -> str:
    """Create the interface `name`, or attach to it, and return its real name; call `prepare` next.

    With `offload`, every packet has a virtio header. With `several`, the interface has several queues, and `tun`
    becomes the first. With `information`, every packet has a `struct tun_pi`.

    Raises `NameTaken`, `AdapterBusy`, `AdapterNotFound`, `PermissionDenied` or `AdapterUnavailable`.
    """
    flags = _flags(tun, offload, several, information) | IFF_NO_CARRIER | (IFF_TUN_EXCL if create else 0)
    if create and is_plain(tun):
        if several:
            raise AdapterUnavailable(errno.ENOTTY, f"{PLAIN}, without several queues; leave out queues")
        name, flags = _free_name(name), _flags(tun, False, False, information)
    try:
        reply = fcntl.ioctl(tun, TUNSETIFF, IFREQ.pack(os.fsencode(name), flags))
    except OSError as error:
        raise _explained(error, _NOT_CREATED if create else _NOT_OPENED, name) from None
    if not create and not IFREQ.unpack(fcntl.ioctl(tun, TUNGETIFF, bytes(IFREQ.size)))[1] & IFF_PERSIST:
        # It vanished after the lookup, and the kernel created a new interface; closing the file removes that.
        raise AdapterNotFound(errno.ENODEV, f"{name} was removed while it was opened; create it again")
    return read_name(reply)


def is_plain(tun: io.FileIO) -> bool:
    """Return True for a driver without the functions that Linux has had since 2.6.27, such as that of gVisor.

    It has no superpackets, queues, persistent interfaces, templates of names and carrier, and knows no IFF_TUN_EXCL.
    Seen with runsc 20221219 and 20240729.
    """
    try:
        fcntl.ioctl(tun, TUNGETFEATURES, bytes(4))
    except OSError as error:
        return error.errno == errno.ENOTTY and is_driver(tun)
    return False


def is_driver(tun: io.FileIO) -> bool:
    """Return True if `tun` is of a TUN driver, which refuses a request for neither TUN nor TAP as such."""
    try:
        fcntl.ioctl(tun, TUNSETIFF, bytes(IFREQ.size))
    except OSError as error:
        return error.errno != errno.ENOTTY
    return True


def _free_name(name: str) -> str:
    """Return the name that Linux would choose. Raises `NameTaken`: without IFF_TUN_EXCL one has to look first."""
    used = {used for _, used in socket.if_nameindex()}
    names = (name.replace("%d", str(number)) for number in itertools.count()) if "%d" in name else iter([name])
    free = next((each for each in names if each not in used), "")
    if not free or len(os.fsencode(free)) > MAX_NAME:
        raise _explained(OSError(errno.EEXIST if "%d" in name else errno.EBUSY, ""), _NOT_CREATED, name)
    return free


def prepare(tun: io.FileIO, *, offload: bool, tunnels: bool) -> Offload:
    """Undo settings of other programs for the interface, and take the carrier down.

    Return the kinds of superpackets that it hands over if `offload`, with those of `tunnels` if so; a session switches
    them on.

    Raises `AdapterGone`.
    """
    reset(tun)
    superpackets = set_offload(tun, offload, tunnels)
    set_offload(tun, offload=False)  # For a session alone: a killed program then leaves them on less often.
    set_carrier(tun, up=False)  # Before Linux 6.2, attaching switches the carrier on regardless of the flag.
    return superpackets


def read_name(reply: bytes) -> str:
    """Return the name in a `struct ifreq` of the kernel, which may leave other bytes behind the name's end."""
    return os.fsdecode(IFREQ.unpack(reply)[0].partition(b"\0")[0])


def name_of(tun: io.FileIO) -> str | None:
    """Return the present name of the attached interface; None if it was removed, or `tun` closed."""
    try:
        return read_name(fcntl.ioctl(tun, TUNGETIFF, bytes(IFREQ.size)))
    except (OSError, ValueError):
        return None


def namespace_of(tun: io.FileIO) -> io.FileIO | None:
    """Open the network namespace where the attached interface is.

    Return None if the kernel does not tell: it does so since Linux 5.2, if this process has CAP_NET_ADMIN there, as
    long as the interface exists.
    """
    try:
        return io.FileIO(fcntl.ioctl(tun, TUNGETDEVNETNS))
    except (OSError, ValueError):
        return None


def attach_queue(tun: io.FileIO, name: str, offload: bool, *, receives: bool, information: bool = False) -> None:
    """Add `tun` as a queue of the interface `name`; without `receives` the queue is only for sending.

    The kernel assigns a flow to the receiving queue that last sent its packets, and a flow that changes queues may
    get reordered. From a queue that does not receive the kernel learns nothing, so that each flow keeps the queue of
    its hash. Raises `AdapterError` or a subclass.
    """
    try:
        fcntl.ioctl(tun, TUNSETIFF, IFREQ.pack(os.fsencode(name), _flags(tun, offload, True, information)))
        if not receives:
            fcntl.ioctl(tun, TUNSETQUEUE, IFREQ.pack(os.fsencode(name), IFF_DETACH_QUEUE))
    except OSError as error:
        raise _explained(error, _NOT_OPENED, name) from None


def features(tun: io.FileIO) -> int:
    """Return the flags of TUNSETIFF that the driver knows; 0 for a plain one, which cannot tell."""
    try:
        return int.from_bytes(fcntl.ioctl(tun, TUNGETFEATURES, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def _flags(tun: io.FileIO, offload: bool, several: bool, information: bool) -> int:
    """Return the flags for TUNSETIFF. They are the whole interface's, so all of its files ask for the same.

    With IFF_BACKPRESSURE (after Linux 7.2) packets wait in the interface's queueing discipline while the ring is full,
    in place of being dropped (Documentation/networking/tuntap.rst).
    """
    form = (0 if information else IFF_NO_PI) | (IFF_VNET_HDR if offload else 0)
    return IFF_TUN | form | (IFF_MULTI_QUEUE if several else 0) | (features(tun) & IFF_BACKPRESSURE)


def set_offload(tun: io.FileIO, offload: bool, tunnels: bool = False) -> Offload:
    """Allow superpackets or not, those of `tunnels` too if so, and return which kinds the interface has then.

    The setting belongs to the interface, not to the descriptor: left on, it would surprise the next program.
    """
    found = Offload.TCP if offload else Offload.NONE
    try:
        switch(tun, found)
    except AdapterUnavailable:
        return Offload.NONE  # The driver is plain.
    if not offload:
        return Offload.NONE
    try:
        for kinds in (Offload.TCP_AND_UDP, Offload.TUNNELS)[: 1 + tunnels]:
            switch(tun, kinds)
            found = kinds
    except AdapterError:
        switch(tun, found)  # Linux has superpackets of UDP since 6.2, and those of tunnels since 6.17.
    return found


def switch(tun: io.FileIO, kinds: Offload) -> None:
    """Have the interface hand over superpackets of these kinds, behind the headers that they need.

    With a tunnel superpacket and no wide header, the kernel would fail to hand over any packet.
    """
    size = struct.pack("i", WIDE_HEADER_SIZE if kinds.wide else HEADER_SIZE)
    changes: list[tuple[int, int | bytes]] = [(TUNSETOFFLOAD, kinds.value), (TUNSETVNETHDRSZ, size)]
    for request, argument in reversed(changes) if kinds.wide else changes:
        control(tun, request, argument)


def reset(tun: io.FileIO) -> None:
    """Undo settings that another program has left to all later ones: the header's size, and a limit of packets to send.

    Raises `AdapterGone`.
    """
    with suppress(AdapterUnavailable):  # A plain driver has neither.
        control(tun, TUNSETVNETHDRSZ, struct.pack("i", HEADER_SIZE))
        control(tun, TUNSETSNDBUF, struct.pack("i", _NO_LIMIT))


def keeps_offload(name: str) -> bool:
    """Return True if the interface of this thread's network namespace hands out unfinished checksums.

    Every user may ask, by ethtool's request.
    """
    value = array.array("I", [ETHTOOL_GTXCSUM, 0])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            fcntl.ioctl(asking, SIOCETHTOOL, struct.pack("16sP16x", os.fsencode(name), value.buffer_info()[0]))
    except OSError:
        return False  # It has gone, or this system does not tell.
    return bool(value[1])


def set_carrier(tun: io.FileIO, *, up: bool) -> None:
    """Switch the carrier on or off (Linux 5.0). Raises `AdapterGone`."""
    with suppress(AdapterUnavailable):  # A plain driver has none.
        control(tun, TUNSETCARRIER, struct.pack("i", up))


def control(tun: io.FileIO, request: int, argument: int | bytes) -> None:
    """Call ioctl on an attached interface. Raises `AdapterGone`."""
    if isinstance(argument, int) and argument >= 1 << 31:
        argument -= 1 << 32  # Python takes only a signed int; the kernel sees the same 32 bits.
    try:
        fcntl.ioctl(tun, request, argument)
    except OSError as error:
        raise refused(error, "the adapter") from None


def discard(tun: io.FileIO) -> None:
    """Discard the packets that wait for the program. Raises `AdapterGone`."""
    try:
        while tun.read(MAX_RECORD):
            pass
    except OSError as error:
        raise refused(error, "the adapter") from None


def refused(error: OSError, name: str) -> AdapterError:
    """Return the `AdapterGone`, `LinkDown` or other `AdapterError` for an error on the descriptor of adapter `name`."""
    return _explained(error, _NOT_WORKING, name)


PLAIN = "this system has a plain TUN driver, as gVisor's is (see threepipe doctor)"

Explanations = dict[int, tuple[type[AdapterError], str]]
"""The exception and its text about a {name}, by errno; {become} is advice on CAP_NET_ADMIN."""

_NO_DRIVER: Explanations = {
    errno.ENOENT: (AdapterUnavailable, "{name} is missing; load the module (modprobe tun), or in a container pass the"
                   " device (--device {name})"),
    errno.ENODEV: (AdapterUnavailable, "{name} exists, but the kernel has no TUN driver for it; load the module"
                   " (modprobe tun)"),
}  # fmt: skip
_NO_DRIVER |= {errno.ENXIO: _NO_DRIVER[errno.ENODEV]}

_FORBIDDEN = (PermissionDenied, "a security module forbids attaching to {name}; see what SELinux or AppArmor logs")

_NOT_CREATED: Explanations = {
    errno.EINVAL: (AdapterError, "the kernel refuses the name {name}; choose another name"),
    errno.EEXIST: (NameTaken, "every {name} of at most 15 bytes exists already; choose a shorter template"),
    errno.ENOTTY: (AdapterUnavailable, f"{TUN_PATH} is not the TUN driver; load the module (modprobe tun)"),
    errno.EBUSY: (NameTaken, "an interface named {name} exists; choose another name, a template like tp%d, or"
                  " open it"),
    errno.EPERM: (PermissionDenied, "creating {name} needs CAP_NET_ADMIN; {become}, or have root create it as"
                  " persistent with this user as its owner, and open it"),
    errno.EACCES: _FORBIDDEN,
}  # fmt: skip
_NOT_CREATED |= {errno.ENFILE: _NOT_CREATED[errno.EEXIST]}  # From older kernels, such as 6.1.

_NOT_OPENED: Explanations = {
    errno.EBUSY: (AdapterBusy, "{name} is in use by another program; close it there first"),
    errno.EPERM: (PermissionDenied, "{name} belongs to another user or group; {become}, or have root create it"
                  " with this user as its owner"),
    errno.EACCES: _FORBIDDEN,
    errno.EINVAL: (AdapterNotFound, "{name} is not a layer-3 TUN adapter; open another"),
}  # fmt: skip

_NOT_WORKING: Explanations = {
    errno.EBADFD: (AdapterGone, "{name} was removed by another program; create or open it again"),
    errno.EIO: (LinkDown, "{name} was set down; as root: ip link set {name} up"),
    errno.ENOTTY: (AdapterUnavailable, PLAIN + ", without what {name} needs; leave out persistent"),
}


def _explained(error: OSError, explanations: Explanations, name: str) -> AdapterError:
    kind, text = explanations.get(error.errno or 0, (AdapterError, f"{{name}}: {error.strerror}"))
    return kind(error.errno, text.format(name=name, become=become("CAP_NET_ADMIN")))
