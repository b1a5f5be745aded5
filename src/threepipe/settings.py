"""The settings of an adapter, checked before anything is made. Pure data: asks no operating system."""

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from threepipe.errors import InvalidSetting

__all__ = ["AdapterSettings", "Address", "Namespace", "Network", "check_mtu", "check_name"]

Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface
"""An address with its prefix length."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
"""The destination of a route."""
Namespace = str | int | os.PathLike[str]
"""A network namespace: a name, a path (with a slash), or the id of a process in it."""

Item = TypeVar("Item")

MIN_MTU, MAX_MTU = 68, 65535  # RFC 791, section 3.2, and the longest packet.
MIN_IPV6_MTU = 1280  # RFC 8200, section 5.
MAX_NAME = 15  # IFNAMSIZ of <net/if.h> less the final zero.
_FORBIDDEN = frozenset(b"/:\0 \t\n\v\f\r\xa0")  # White space is the kernel's, which reads bytes as Latin-1.


def check_name(name: str, *, template: bool = False) -> str:
    """`name`, or `InvalidSetting` where no interface can have it; `template` allows one `%d`.

    At most 15 bytes, no slash, colon or white space, not `.` or `..` (dev_valid_name() of Linux).
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise InvalidSetting(f"adapter name {name!r} cannot be encoded as UTF-8") from None
    if not 1 <= len(encoded) <= MAX_NAME:
        raise InvalidSetting(f"adapter name {name!r} has {len(encoded)} bytes; give 1 to {MAX_NAME}")
    if name in (".", "..") or _FORBIDDEN.intersection(encoded):
        raise InvalidSetting(f"adapter name {name!r}: slashes, colons, white space, '.' and '..' cannot be used")
    if "%" in (name.replace("%d", "", 1) if template else name):
        allowed = "one %d, for a number that the system chooses" if template else "none here"
        raise InvalidSetting(f"adapter name {name!r}: of percent signs, {allowed}")
    return name


def check_mtu(mtu: int, *, ipv6: bool) -> int:
    """`mtu` in bytes, or `InvalidSetting`: 68 to 65535, at least 1280 where IPv6 is used."""
    if not MIN_MTU <= mtu <= MAX_MTU:
        raise InvalidSetting(f"MTU {mtu}: give {MIN_MTU} to {MAX_MTU} bytes")
    if ipv6 and mtu < MIN_IPV6_MTU:
        raise InvalidSetting(f"MTU {mtu}: IPv6 needs at least {MIN_IPV6_MTU} bytes (RFC 8200, section 5)")
    return mtu


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What `Adapter.create` was asked for, in the types that platforms use."""

    name: str
    addresses: tuple[Address, ...] = ()
    routes: tuple[Network, ...] = ()
    mtu: int | None = None
    netns: Namespace | None = None
    persistent: bool = False
    owner: str | int | None = None
    group: str | int | None = None

    @classmethod
    def check(
        cls,
        name: str,
        *,
        addresses: Iterable[str | Address] = (),
        routes: Iterable[str | Network] = (),
        mtu: int | None = None,
        netns: Namespace | None = None,
        persistent: bool = False,
        owner: str | int | None = None,
        group: str | int | None = None,
    ) -> "AdapterSettings":
        """Settings from what people write; raises `InvalidSetting` where a value cannot work."""
        parsed_addresses = tuple([_address(text) for text in _listed(addresses)])
        parsed_routes = tuple([_route(text) for text in _listed(routes)])
        if mtu is not None:
            check_mtu(mtu, ipv6=any(item.version == 6 for item in parsed_addresses + parsed_routes))
        if not persistent and (owner is not None or group is not None):
            raise InvalidSetting("owner and group are for persistent adapters: others are their maker's alone")
        check_name(name, template=True)
        return cls(name, parsed_addresses, parsed_routes, mtu, netns, persistent, owner, group)


def _listed(items: Iterable[Item]) -> Iterable[Item]:
    """A lone one is an easy mistake, and would be taken letter by letter, or host by host."""
    if isinstance(items, (str, ipaddress.IPv4Network, ipaddress.IPv6Network)):
        raise InvalidSetting(f"{items!r}: give a list, even of one")
    return items


def _address(text: str | Address) -> Address:
    try:
        address = ipaddress.ip_interface(text)
    except ValueError as error:
        raise InvalidSetting(f"address {text!r}: {error}; write it like 10.6.7.1/24 or fd00::1/64") from None
    if address.ip.is_multicast or address.ip.is_unspecified or address.ip.is_loopback:
        raise InvalidSetting(f"address {text!r} cannot be an interface's own")
    return _without_zone("address", address)


def _without_zone(what: str, item: Item) -> Item:
    if "%" in str(item):
        raise InvalidSetting(f"{what} {item}: leave out the zone, from the percent sign on; the adapter is the zone")
    return item


def _route(text: str | Network) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidSetting(f"route {text!r}: {error}; write it like 10.0.0.0/8, 0.0.0.0/0 or fd00::/8") from None
    return _without_zone("route", network)
