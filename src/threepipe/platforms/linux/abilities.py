"""What the TUN driver of this machine can do, and what this user may, found out by trying."""

import sys

assert sys.platform == "linux"

import errno
import fcntl
import io
import struct

from threepipe.platforms.linux.tun import (
    IFF_MULTI_QUEUE,
    IFF_NO_PI,
    IFF_TUN,
    IFF_VNET_HDR,
    IFREQ,
    TUN_F_CSUM,
    TUN_F_TSO4,
    TUN_F_TSO6,
    TUN_F_USO4,
    TUN_F_USO6,
    TUNGETFEATURES,
    TUNSETCARRIER,
    TUNSETIFF,
    TUNSETOFFLOAD,
)

__all__ = ["abilities", "is_driver", "may_create"]


def is_driver(file: io.FileIO) -> bool:
    """Whether the TUN driver is behind `file`, and not any other that has its place."""
    return _accepts(file, TUNGETFEATURES, bytes(4))


def may_create(tun: io.FileIO) -> bool:
    """Whether this user has the privilege to make interfaces where `tun` was opened; makes none."""
    try:
        # The driver looks at the privilege first, and only then refuses to make neither a TUN nor a TAP.
        fcntl.ioctl(tun, TUNSETIFF, bytes(IFREQ.size))
    except OSError as error:
        return error.errno != errno.EPERM
    return True


def abilities(tun: io.FileIO) -> frozenset[str]:
    """Make an interface, which goes when `tun` is closed, and return the names of the abilities it has.

    They are the keys of `_ABILITIES`, and "IFF_MULTI_QUEUE". Raises `OSError` as the kernel does.
    """
    fcntl.ioctl(tun, TUNSETIFF, IFREQ.pack(b"tpprobe%d", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
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
