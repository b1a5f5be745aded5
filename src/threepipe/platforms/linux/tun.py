"""The TUN driver's file: opening /dev/net/tun and its ioctls. Knows no netlink and no sessions.

Constants are those of <linux/if_tun.h>, which a test compiles against.
"""

import sys

assert sys.platform == "linux"

import enum
import errno
import fcntl
import io
import os
import struct

from threepipe.core.superpacket import HEADER_SIZE, MAX_RECORD
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

__all__ = [
    "Offload",
    "attach",
    "attach_queue",
    "control",
    "discard",
    "open_tun",
    "refused",
    "set_carrier",
    "set_offload",
]

TUN_PATH = "/dev/net/tun"

TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC
TUNSETGROUP = 0x400454CE
TUNSETOFFLOAD = 0x400454D0
TUNGETFEATURES = 0x800454CF
TUNGETIFF = 0x800454D2
TUNSETVNETHDRSZ = 0x400454D8
TUNSETQUEUE = 0x400454D9
TUNSETCARRIER = 0x400454E2

IFF_TUN = 0x0001
IFF_NO_CARRIER = 0x0040
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

IFREQ = struct.Struct("16sH22x")  # struct ifreq: the name, and the flags of its union.


class Offload(enum.Enum):
    """What superpackets an interface takes; none also means that packets have no virtio header."""

    NONE = 0
    TCP = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
    TCP_AND_UDP = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6


def open_tun() -> io.FileIO:
    """The TUN driver's file, non-blocking and not inherited, not attached to an interface yet.

    Raises `AdapterUnavailable`, `PermissionDenied`.
    """
    try:
        return io.FileIO(TUN_PATH, "r+", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))
    except OSError as error:
        raise _explained(error, _NO_DRIVER, TUN_PATH) from None


def attach(tun: io.FileIO, name: str, *, create: bool, offload: bool, several: bool) -> tuple[str, Offload]:
    """Make (`create`) or attach to the interface `name`, without carrier; return its real name, and its offload.

    With `offload`, superpackets pass in both directions, and every packet has a virtio header. `several`:
    it has, or is to have, more than one queue, and this is the first of them.

    Raises `NameTaken`, `AdapterBusy`, `AdapterNotFound`, `PermissionDenied`, `AdapterUnavailable`.
    """
    flags = _flags(offload, several) | IFF_NO_CARRIER | (IFF_TUN_EXCL if create else 0)
    try:
        reply = fcntl.ioctl(tun, TUNSETIFF, IFREQ.pack(os.fsencode(name), flags))
    except OSError as error:
        raise _explained(error, _NOT_CREATED if create else _NOT_OPENED, name) from None
    if not create and not IFREQ.unpack(fcntl.ioctl(tun, TUNGETIFF, bytes(IFREQ.size)))[1] & IFF_PERSIST:
        # It went away after it was looked up, and the kernel made a new one in its place; closing undoes that.
        raise AdapterNotFound(errno.ENODEV, f"{name} was removed while it was being opened")
    superpackets = set_offload(tun, offload)
    set_carrier(tun, up=False)  # Before Linux 6.2 attaching puts the carrier on regardless of the flag.
    return os.fsdecode(IFREQ.unpack(reply)[0].rstrip(b"\0")), superpackets


def attach_queue(tun: io.FileIO, name: str, offload: bool, *, receives: bool) -> None:
    """Make `tun` one more queue of the interface `name`; one that does not receive is for sending.

    The kernel learns from a queue that receives which flows to hand over by it, those that were sent by
    it; and a flow that changes its queue may be overtaken by itself. From the other kind it learns nothing,
    so that a flow's queue stays that of its hash. Raises `AdapterError` and its kinds.
    """
    try:
        fcntl.ioctl(tun, TUNSETIFF, IFREQ.pack(os.fsencode(name), _flags(offload, True)))
        if not receives:
            fcntl.ioctl(tun, TUNSETQUEUE, IFREQ.pack(os.fsencode(name), IFF_DETACH_QUEUE))
    except OSError as error:
        raise _explained(error, _NOT_OPENED, name) from None


def _flags(offload: bool, several: bool) -> int:
    return IFF_TUN | IFF_NO_PI | (IFF_VNET_HDR if offload else 0) | (IFF_MULTI_QUEUE if several else 0)


def set_offload(tun: io.FileIO, offload: bool) -> Offload:
    """Whether superpackets may come, and which; return what there is then.

    It is the interface's and not the descriptor's: left on, it would surprise the next program.
    """
    if not offload:
        control(tun, TUNSETOFFLOAD, Offload.NONE.value)
        return Offload.NONE
    control(tun, TUNSETOFFLOAD, Offload.TCP.value)
    control(tun, TUNSETVNETHDRSZ, struct.pack("i", HEADER_SIZE))
    try:
        control(tun, TUNSETOFFLOAD, Offload.TCP_AND_UDP.value)
    except AdapterError:
        return Offload.TCP  # UDP came with Linux 6.2.
    return Offload.TCP_AND_UDP


def set_carrier(tun: io.FileIO, *, up: bool) -> None:
    """Plug the cable in or out; Linux can from 5.0 on. Raises `AdapterGone`."""
    control(tun, TUNSETCARRIER, struct.pack("i", up))


def control(tun: io.FileIO, request: int, argument: int | bytes) -> None:
    """An ioctl on an attached interface. Raises `AdapterGone`."""
    if isinstance(argument, int) and argument >= 1 << 31:
        argument -= 1 << 32  # Python takes a signed int only; the kernel sees the same 32 bits.
    try:
        fcntl.ioctl(tun, request, argument)
    except OSError as error:
        raise refused(error, "the adapter") from None


def discard(tun: io.FileIO) -> None:
    """Throw away the packets that wait for the program. Raises `AdapterGone`."""
    try:
        while tun.read(MAX_RECORD):
            pass
    except OSError as error:
        raise refused(error, "the adapter") from None


def refused(error: OSError, name: str) -> AdapterError:
    """What an error on the descriptor of the adapter `name` means: `AdapterGone`, `LinkDown` or another."""
    return _explained(error, _NOT_WORKING, name)


Explanations = dict[int, tuple[type[AdapterError], str]]
"""For an errno: the exception, and what it says of a {name}."""

_NO_DRIVER: Explanations = {
    errno.ENOENT: (AdapterUnavailable, "{name} is missing; load the module (modprobe tun), or in a container pass the"
                   " device (--device {name})"),
    errno.ENODEV: (AdapterUnavailable, "{name} is there but the kernel has no TUN driver behind it; load the module"
                   " (modprobe tun)"),
    errno.EACCES: (PermissionDenied, "this user may not open {name}; run as root, or have it made accessible"
                   " (chmod 0666 {name})"),
}  # fmt: skip
_NO_DRIVER |= {errno.ENXIO: _NO_DRIVER[errno.ENODEV], errno.EPERM: _NO_DRIVER[errno.EACCES]}

_NOT_CREATED: Explanations = {
    errno.EINVAL: (AdapterError, "the kernel does not take {name} as a name; take another name"),
    errno.EEXIST: (NameTaken, "every number for {name} that fits in 15 bytes is taken; take a shorter template"),
    errno.ENOTTY: (AdapterUnavailable, f"{TUN_PATH} is not the TUN driver's; load the module (modprobe tun)"),
    errno.EBUSY: (NameTaken, "an interface named {name} exists; take another name, a template like tp%d, or open it"),
    errno.EPERM: (PermissionDenied, "making {name} takes CAP_NET_ADMIN: run as root, or have root make it persistent"
                  " with this user as its owner and open it"),
}  # fmt: skip

_NOT_OPENED: Explanations = {
    errno.EBUSY: (AdapterBusy, "{name} is held by another program; close it there first"),
    errno.EPERM: (PermissionDenied, "{name} belongs to another user or group; root may open it, and says who else"
                  " may when creating it"),
    errno.EINVAL: (AdapterNotFound, "{name} is no layer-3 TUN adapter, so it cannot be opened"),
}  # fmt: skip

_NOT_WORKING: Explanations = {
    errno.EBADFD: (AdapterGone, "{name} was removed by somebody else; make or open it again"),
    errno.EIO: (LinkDown, "{name} was set down; root sets it up again: ip link set {name} up"),
}


def _explained(error: OSError, explanations: Explanations, name: str) -> AdapterError:
    kind, text = explanations.get(error.errno or 0, (AdapterError, f"{{name}}: {error.strerror}"))
    return kind(error.errno, text.format(name=name))
