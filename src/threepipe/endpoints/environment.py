"""A descriptor of packets that the starting program hands over, by variables of the environment.

The conventions are those of OpenConnect (--script-tun), OpenVPN 2.7 (--dev-node unix:), wireguard-go, Xray and systemd;
`threepipe exec` and `exec,datagrams` follow them too. OpenConnect and OpenVPN also give addresses and an MTU.
"""

import os
from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple

from threepipe.endpoints.inherited import open_fd
from threepipe.endpoints.request import OpenRequest, RateLimitedLog
from threepipe.errors import InvalidSetting
from threepipe.session import Session
from threepipe.settings import Address, Network, parse_addresses, parse_routes

__all__ = [
    "FIRST_LISTED",
    "Offer",
    "count_listed",
    "find_descriptor",
    "from_environment",
    "names_listed",
    "offered",
    "starter",
    "without_numbers",
]

_NUMBERS = ("VPNFD", "TUNTAP_SOCKET_FD", "WG_TUN_FD", "XRAY_TUN_FD")
_LARGEST = 2**31 - 1
"""The largest number of a descriptor, a process, or bytes."""
_MANY = 1 << 20  # No process has so many descriptors (NR_OPEN in <linux/fs.h>).
_LIST = ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID")
FIRST_LISTED = 3
"""The first descriptor of systemd's list (SD_LISTEN_FDS_START of sd_listen_fds(3))."""
_NAME = "tun"


def from_environment() -> Session:
    """Return a session on the descriptor that the program which started this one left in the environment.

    Looks at VPNFD, TUNTAP_SOCKET_FD, WG_TUN_FD, XRAY_TUN_FD, and the descriptor named tun in systemd's list, in this
    order. The variables are removed, as the session owns the descriptor. Raises `InvalidSetting` if there is none, or
    if it cannot carry packets.
    """
    number = find_descriptor(os.environ)
    session = open_fd(OpenRequest((number,), "left", RateLimitedLog(f"fd:{number}")))
    _forget(os.environ, number)
    return session


def find_descriptor(environment: Mapping[str, str]) -> int:
    """Return the number of the descriptor in the variables. Raise `InvalidSetting` if they have none."""
    for name in _NUMBERS:
        if (text := environment.get(name)) is not None:
            if (number := _parsed(text)) is None:
                raise InvalidSetting(f"{name}={text} is not the number of a descriptor; leave it to the program before")
            return number
    number = _listed(environment)
    if number is None:
        names = ", ".join([*_NUMBERS, "LISTEN_FDS"])
        raise InvalidSetting(
            f"no descriptor is in the environment ({names}); start this by openconnect --script-tun, by openvpn"
            " --dev-node unix:, or by threepipe exec"
        )
    return number


def count_listed(environment: Mapping[str, str]) -> int:
    """Return how many descriptors this process got by systemd's convention, sd_listen_fds(3)."""
    count = _parsed(environment.get("LISTEN_FDS", "")) or 0
    return count if count < _MANY and environment.get("LISTEN_PID") == str(os.getpid()) else 0


def names_listed(environment: Mapping[str, str]) -> list[str]:
    """Return a name for each of those descriptors; "unknown", as in systemd, for one that has none."""
    count = count_listed(environment)
    names = environment["LISTEN_FDNAMES"].split(":")[:count] if "LISTEN_FDNAMES" in environment else []
    return names + ["unknown"] * (count - len(names))


def without_numbers(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without those that tell of one descriptor, for a program that gets another."""
    return {name: value for name, value in environment.items() if name not in _NUMBERS}


def _listed(environment: Mapping[str, str]) -> int | None:
    names = names_listed(environment)
    # Of several the last, which `threepipe exec` added to those that it got itself.
    return FIRST_LISTED + len(names) - 1 - names[::-1].index(_NAME) if _NAME in names else None


def _parsed(text: str) -> int | None:
    """Return a number of digits alone, up to the largest."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(_LARGEST)) else None
    return number if number is not None and number <= _LARGEST else None


def _forget(environment: MutableMapping[str, str], number: int) -> None:
    """Remove the variables that tell of `number`; systemd's list goes as a whole, as by sd_listen_fds(3)."""
    if _listed(environment) == number:
        for name in _LIST:
            environment.pop(name, None)
    for name in _NUMBERS:
        if environment.get(name) == str(number):
            del environment[name]


def starter(environment: Mapping[str, str]) -> int:
    """Return the id of the process at the other end: OpenConnect's VPNPID, as a shell may stand between, or the parent.

    To be asked before anything else, as a parent that ended is replaced by another.
    """
    return _parsed(environment.get("VPNPID", "")) or os.getppid()


class Offer(NamedTuple):
    """The settings that the program at the other end has for an adapter at this one."""

    addresses: tuple[Address, ...] = ()
    routes: tuple[Network, ...] = ()
    """The other end of a link from point to point."""
    mtu: int | None = None

    def complete(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a `tun` address, with those offered where it has none of its own."""
        completed = dict(options)
        if "address" not in options and self.addresses:
            completed["address"] = [*self.addresses]
            completed["route"] = [*options.get("route", ()), *self.routes]
        if "mtu" not in options and self.mtu is not None:
            completed["mtu"] = self.mtu
        return completed


def offered(environment: Mapping[str, str]) -> Offer:
    """Return the offer in the variables of OpenConnect or OpenVPN. Raise `InvalidSetting` if they make no sense."""
    get = environment.get
    addresses, routes = [], []
    if local := get("INTERNAL_IP4_ADDRESS"):
        addresses.append(f"{local}/{get('INTERNAL_IP4_NETMASKLEN') or get('INTERNAL_IP4_NETMASK') or 32}")
    if local := get("INTERNAL_IP6_NETMASK") or get("INTERNAL_IP6_ADDRESS"):  # The first is an address with a length.
        addresses.append(local)
    if local := get("ifconfig_local"):
        addresses.append(f"{local}/{get('ifconfig_netmask') or 32}")
    if (remote := get("ifconfig_remote")) and not get("ifconfig_netmask"):
        routes.append(remote)
    if local := get("ifconfig_ipv6_local"):
        addresses.append(f"{local}/{get('ifconfig_ipv6_netbits') or 128}")
    mtu = get("INTERNAL_IP4_MTU") or get("TUNTAP_MTU")
    if mtu and _parsed(mtu) is None:
        raise InvalidSetting(f"the MTU {mtu!r} in the environment is not a number; give mtu= and an address yourself")
    return Offer(parse_addresses(addresses), parse_routes(routes), _parsed(mtu) if mtu else None)
