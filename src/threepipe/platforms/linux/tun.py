"""The TUN driver's file: opening /dev/net/tun and its ioctls. Knows no netlink and no sessions.

Constants are those of <linux/if_tun.h>, which a test compiles against.
"""

import sys

assert sys.platform == "linux"

import errno
import fcntl
import io
import os
import struct

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
from threepipe.packet import MAX_PACKET

__all__ = [
    "attach",
    "discard",
    "is_driver",
    "may_create",
    "open_tun",
    "probe",
    "refused",
    "set_carrier",
    "set_group",
    "set_owner",
    "set_persistent",
]

TUN_PATH = "/dev/net/tun"

TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC
TUNSETGROUP = 0x400454CE
TUNSETOFFLOAD = 0x400454D0
TUNGETFEATURES = 0x800454CF
TUNGETIFF = 0x800454D2
TUNSETCARRIER = 0x400454E2

IFF_TUN = 0x0001
IFF_NO_CARRIER = 0x0040
IFF_MULTI_QUEUE = 0x0100
IFF_PERSIST = 0x0800
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFF_TUN_EXCL = 0x8000

TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
TUN_F_USO4 = 0x20
TUN_F_USO6 = 0x40

_IFREQ = struct.Struct("16sH22x")  # struct ifreq: the name, and the flags of its union.


def open_tun() -> io.FileIO:
    """The TUN driver's file, non-blocking and not inherited, not attached to an interface yet."""
    try:
        fd = os.open(TUN_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise AdapterUnavailable(
            error.errno,
            f"{TUN_PATH} is missing; load the module (modprobe tun), or in a container pass the device"
            f" (--device {TUN_PATH})",
        ) from None
    except PermissionError as error:
        raise PermissionDenied(
            error.errno,
            f"this user may not open {TUN_PATH}; run as root, or have it made accessible (chmod 0666 {TUN_PATH})",
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENXIO):
            raise AdapterError(error.errno, f"{TUN_PATH}: {error.strerror}") from None
        raise AdapterUnavailable(
            error.errno,
            f"{TUN_PATH} is there but the kernel has no TUN driver behind it; load the module (modprobe tun)",
        ) from None
    return io.FileIO(fd, "r+")


def attach(tun: io.FileIO, name: str, *, create: bool) -> str:
    """Make (`create`) or attach to the interface `name`, without carrier; return its real name."""
    flags = IFF_TUN | IFF_NO_PI | IFF_NO_CARRIER | (IFF_TUN_EXCL if create else 0)
    try:
        reply = fcntl.ioctl(tun, TUNSETIFF, _IFREQ.pack(os.fsencode(name), flags))
    except OSError as error:
        code = error.errno or 0
        refusals = _CREATE_REFUSALS if create else _OPEN_REFUSALS
        kind, text = refusals.get(code, (AdapterError, f"the kernel refused {{name}}: {error.strerror}"))
        raise kind(code, text.format(name=name)) from None
    actual = os.fsdecode(_IFREQ.unpack(reply)[0].rstrip(b"\0"))
    if not create and not _flags(tun) & IFF_PERSIST:
        # It went away after it was looked up, and the kernel made a new one in its place; closing undoes that.
        raise AdapterNotFound(errno.ENODEV, f"{name} was removed while it was being opened")
    _ioctl(tun, TUNSETOFFLOAD, 0)  # It is the interface's and may be left from an earlier program.
    set_carrier(tun, up=False)  # Before Linux 6.2 attaching puts the carrier on regardless of the flag.
    return actual


_CREATE_REFUSALS: dict[int, tuple[type[AdapterError], str]] = {
    errno.EINVAL: (AdapterError, "the kernel does not take {name} as a name; take another name"),
    errno.EEXIST: (NameTaken, "every number for {name} that fits in 15 bytes is taken; take a shorter template"),
    errno.ENOTTY: (AdapterUnavailable, f"{TUN_PATH} is not the TUN driver's; load the module (modprobe tun)"),
    errno.EBUSY: (NameTaken, "an interface named {name} exists; take another name, a template like tp%d, or open it"),
    errno.EPERM: (PermissionDenied, "making {name} takes CAP_NET_ADMIN: run as root, or have root make it persistent"
                  " with this user as its owner and open it"),
}  # fmt: skip

_OPEN_REFUSALS: dict[int, tuple[type[AdapterError], str]] = {
    errno.EBUSY: (AdapterBusy, "{name} is held by another program; close it there first"),
    errno.EPERM: (PermissionDenied, "{name} belongs to another user or group; root may open it, and says who else"
                  " may when creating it"),
    errno.EINVAL: (AdapterNotFound, "{name} is no layer-3 TUN adapter of one queue, so it cannot be opened"),
}  # fmt: skip


def set_carrier(tun: io.FileIO, *, up: bool) -> None:
    """Plug the cable in or out; Linux can from 5.0 on. Raises `AdapterGone`."""
    _ioctl(tun, TUNSETCARRIER, struct.pack("i", up))


def discard(tun: io.FileIO) -> None:
    """Throw away the packets that wait for the program. Raises `AdapterGone`."""
    try:
        while tun.read(MAX_PACKET):
            pass
    except OSError as error:
        raise refused(error, "the adapter") from None


def refused(error: OSError, name: str) -> AdapterError:
    """What an error of the descriptor means for the adapter `name`."""
    kind, text = _REFUSALS.get(error.errno or 0, (AdapterError, f"{{name}}: {error.strerror}"))
    return kind(error.errno, text.format(name=name))


_GONE = "{name} was removed by somebody else; make or open it again"

_REFUSALS: dict[int, tuple[type[AdapterError], str]] = {
    errno.EBADFD: (AdapterGone, _GONE),
    errno.ENODEV: (AdapterGone, _GONE),
    errno.EIO: (LinkDown, "{name} was set down; root sets it up again: ip link set {name} up"),
}


def set_persistent(tun: io.FileIO, *, persistent: bool) -> None:
    _ioctl(tun, TUNSETPERSIST, int(persistent))


def set_owner(tun: io.FileIO, uid: int) -> None:
    _ioctl(tun, TUNSETOWNER, uid)


def set_group(tun: io.FileIO, gid: int) -> None:
    _ioctl(tun, TUNSETGROUP, gid)


def _ioctl(tun: io.FileIO, request: int, argument: int | bytes) -> None:
    if isinstance(argument, int) and argument >= 1 << 31:
        argument -= 1 << 32  # Python takes a signed int only; the kernel sees the same 32 bits.
    try:
        fcntl.ioctl(tun, request, argument)
    except OSError as error:
        raise refused(error, "the adapter") from None


def is_driver(file: io.FileIO) -> bool:
    """Whether the TUN driver is behind `file`, and not any other that has its place."""
    return _accepts(file, TUNGETFEATURES, bytes(4))


def may_create(tun: io.FileIO) -> bool:
    """Whether this user has the privilege to make interfaces where `tun` was opened; makes none."""
    try:
        # The driver looks at the privilege first, and only then refuses to make neither a TUN nor a TAP.
        fcntl.ioctl(tun, TUNSETIFF, bytes(_IFREQ.size))
    except OSError as error:
        return error.errno != errno.EPERM
    return True


def probe(tun: io.FileIO) -> frozenset[str]:
    """Make an interface, which goes when `tun` is closed, and return the names of the abilities it has.

    They are the keys of `_ABILITIES`, and "IFF_MULTI_QUEUE". Raises `OSError` as the kernel does.
    """
    fcntl.ioctl(tun, TUNSETIFF, _IFREQ.pack(b"tpprobe%d", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    (features,) = struct.unpack("I", fcntl.ioctl(tun, TUNGETFEATURES, bytes(4)))
    able = {ability for ability, request in _ABILITIES.items() if _accepts(tun, *request)}
    return frozenset(able | ({"IFF_MULTI_QUEUE"} if features & IFF_MULTI_QUEUE else set()))


def _accepts(file: io.FileIO, request: int, argument: int | bytes) -> bool:
    try:
        fcntl.ioctl(file, request, argument)
    except OSError:
        return False
    return True


# The kernel takes USO4 and USO6 only together, so both are there or neither.
_ABILITIES: dict[str, tuple[int, int | bytes]] = {
    "TUNSETCARRIER": (TUNSETCARRIER, struct.pack("i", 0)),
    "TSO4": (TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4),
    "TSO6": (TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO6),
    "USO4": (TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6),
    "USO6": (TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6),
}


def _flags(tun: io.FileIO) -> int:
    flags: int = _IFREQ.unpack(fcntl.ioctl(tun, TUNGETIFF, bytes(_IFREQ.size)))[1]
    return flags
