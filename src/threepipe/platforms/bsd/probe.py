"""The findings of `threepipe doctor` on macOS and the BSDs. Makes no adapter."""

import sys

assert sys.platform != "win32"

import os
import platform
import socket

from threepipe.backend import Finding
from threepipe.platforms.bsd.kind import Kind

__all__ = ["findings"]


def findings(kind: Kind) -> list[Finding]:
    """Return findings in the order to show; adapters can be made if every essential one is `ok`."""
    return [
        Finding("system", True, f"{kind.name} {platform.release()} on {platform.machine()}"),
        _privilege(),
        *([_node(kind)] if kind.driver == "tun" else []),
        _ipv6(),
    ]


def _privilege() -> Finding:
    if os.geteuid() == 0:
        return Finding("privilege", True, "this program runs as root", essential=True)
    return Finding("privilege", False, "making adapters needs root", "use sudo or doas", essential=True)


def _node(kind: Kind) -> Finding:
    if kind.set_name is not None:
        return _module()
    if os.path.exists("/dev/tun0"):
        return Finding("TUN", True, "/dev/tun0 is there", essential=True)
    return Finding("TUN", False, "/dev/tun0 is missing", "run as root: cd /dev && sh MAKEDEV tun0", essential=True)


def _module() -> Finding:
    """Look for FreeBSD's driver among the kernel's modules: to look for /dev/tun would make an interface."""
    import ctypes

    modfind = ctypes.CDLL(None).modfind
    if any(modfind(name) >= 0 for name in (b"if_tuntap", b"if_tun")):
        return Finding("TUN", True, "the kernel has the driver", essential=True)
    return Finding("TUN", False, "the kernel has no TUN driver", "run as root: kldload if_tun", essential=True)


def _ipv6() -> Finding:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError as error:
        return Finding("IPv6", False, f"this system has no IPv6: {error.strerror}")
    return Finding("IPv6", True, "new adapters can have IPv6 addresses")
