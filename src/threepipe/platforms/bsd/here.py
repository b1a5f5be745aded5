"""Adapters on the BSD that this Python runs on, chosen by its name; other POSIX systems have none."""

import sys

assert sys.platform != "win32"

import errno
from collections.abc import Iterable

from threepipe.backend import AdapterInfo, Finding
from threepipe.errors import AdapterUnavailable
from threepipe.platforms import unsupported
from threepipe.platforms.bsd.device import BsdDevice, Place, adapters_on, add_routes_on, create_on, open_on
from threepipe.platforms.bsd.driver import Driver
from threepipe.platforms.bsd.probe import findings
from threepipe.platforms.posix import runtime_folder
from threepipe.settings import AdapterSettings, NamespaceName, Network

__all__ = ["adapters", "add_routes", "create", "driver_of", "open_existing", "probe"]


def create(settings: AdapterSettings) -> BsdDevice:
    return create_on(_place(), settings)


def open_existing(
    name: str, netns: NamespaceName | None, offload: bool, queues: int, packet_information: bool
) -> BsdDevice:
    return open_on(_place(), name, netns, offload, queues, packet_information)


def adapters(netns: NamespaceName | None) -> list[AdapterInfo]:
    return adapters_on(_place(), netns)


def add_routes(index: int, networks: Iterable[Network], table: int) -> None:
    """Lead networks to the interface `index`, until it is removed. `table` is that of Linux' numbers, and not used."""
    add_routes_on(_place(), index, networks)


def probe() -> list[Finding]:
    """Return what `threepipe doctor` shows of this system."""
    driver = driver_of(sys.platform)
    return findings(driver.kind) if driver else unsupported.probe()


def _place() -> Place:
    """Return this system. Raises `AdapterUnavailable` for one without a driver."""
    driver = driver_of(sys.platform)
    if driver is None:
        raise AdapterUnavailable(errno.ENOSYS, unsupported.TEXT)
    from threepipe.platforms.bsd.native import NativeSystem

    return Place(NativeSystem(), driver, runtime_folder())


def driver_of(platform: str) -> Driver | None:
    """Return the driver for a `sys.platform`, which on FreeBSD, NetBSD and OpenBSD ends with the release's number."""
    # Only the driver of this system is loaded.
    if platform == "darwin":
        from threepipe.platforms.bsd.darwin import DarwinDriver

        return DarwinDriver()
    if platform.startswith("freebsd"):
        from threepipe.platforms.bsd.freebsd import FreeBsdDriver

        return FreeBsdDriver()
    if platform.startswith("netbsd"):
        from threepipe.platforms.bsd.netbsd import NetBsdDriver

        return NetBsdDriver()
    if platform.startswith("openbsd"):
        from threepipe.platforms.bsd.openbsd import OpenBsdDriver

        return OpenBsdDriver()
    return None
