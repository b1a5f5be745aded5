"""Adapters on the BSD that this Python runs on, chosen by its name; other POSIX systems have none."""

import sys

assert sys.platform != "win32"

import errno
from collections.abc import Callable, Collection, Iterable

from threepipe.backend import AdapterInfo, Finding
from threepipe.errors import AdapterUnavailable, InvalidSetting
from threepipe.platforms import unsupported
from threepipe.platforms.bsd.bypass import Bypass, path_mtu_on, remove_on
from threepipe.platforms.bsd.device import (
    BsdDevice,
    Place,
    adapters_on,
    add_routes_on,
    create_on,
    open_on,
    remove_leftovers_on,
)
from threepipe.platforms.bsd.driver import Driver, own_name
from threepipe.platforms.bsd.probe import findings
from threepipe.platforms.posix import runtime_folder
from threepipe.settings import AdapterSettings, NamespaceName, Network

__all__ = [
    "CONFIG_FOLDERS",
    "DNS_TOOLS",
    "ONE_NETWORK",
    "adapter_name",
    "adapters",
    "add_routes",
    "bypass",
    "create",
    "driver_of",
    "open_existing",
    "path_mtu",
    "probe",
    "remove_bypass",
    "remove_leftovers",
    "table_number",
]

CONFIG_FOLDERS = ("/etc/wireguard", "/usr/local/etc/wireguard")
ONE_NETWORK = True
_TABLE_MAIN = 254  # As on Linux; these systems have no other.


def dns_tools(platform: str) -> tuple[str, ...]:
    """Return the programs that can set name servers on a system, in order of preference."""
    tools = {"darwin": "scutil", "openbsd": "route"}
    return (next((tool for start, tool in tools.items() if platform.startswith(start)), "resolvconf"),)


DNS_TOOLS = dns_tools(sys.platform)


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


def adapter_name(name: str) -> str:
    """Return the name, or the template, by which a device of that name can have an adapter."""
    driver = driver_of(sys.platform)
    if driver is None or driver.kind.set_name is not None or own_name(driver.kind, name):
        return name
    return f"{driver.kind.driver}%d"


def bypass(index: int, versions: Collection[int], before: Callable[[list[str]], object]) -> Bypass:
    return Bypass(_place(), index, versions, before)


def remove_bypass(addresses: Iterable[str]) -> None:
    remove_on(_place(), addresses)


def remove_leftovers() -> None:
    remove_leftovers_on(_place())


def path_mtu(address: str) -> int:
    return path_mtu_on(_place(), address)


def table_number(name: str) -> int:
    if name in ("main", str(_TABLE_MAIN)):
        return _TABLE_MAIN
    raise InvalidSetting("routes are set in the main table alone on this system; give auto, main or off")


def probe() -> list[Finding]:
    """Return the findings about this system that `threepipe doctor` shows."""
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
