"""The settings of an adapter, parsed and checked before anything is created. Pure data: asks no operating system."""

import ipaddress
import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from threepipe.errors import InvalidSetting

if TYPE_CHECKING:
    from uuid import UUID

__all__ = [
    "MAX_CAPACITY",
    "MIN_CAPACITY",
    "AdapterSettings",
    "Address",
    "NamespaceName",
    "Network",
    "Server",
    "WindowsSettings",
    "check_capacity",
    "check_mtu",
    "check_name",
    "check_queues",
    "unknown_name",
]

Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface
"""An address with its prefix length."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
"""The destination of a route."""
Server = ipaddress.IPv4Address | ipaddress.IPv6Address
"""The address of a DNS server."""
NamespaceName = str | int | os.PathLike[str]
"""A network namespace: a name, a path (with a slash), or the id of a process in it."""

Item = TypeVar("Item")

MIN_MTU, MAX_MTU = 68, 65535  # RFC 791, section 3.2, and the longest packet.
MIN_IPV6_MTU = 1280  # RFC 8200, section 5.
_SIMILAR = 0.7  # As of difflib: a letter in five is wrong, but tap is not tcp.
MAX_METRIC = 0xFFFFFFFF  # Metrics have 32 bits on every system; for IPv6 Linux reads 0 as 1024.
MAX_QUEUES = 255  # MAX_TAP_QUEUES of Linux, less the queue for sending.
MIN_CAPACITY = 0x20000
"""Bytes of the smallest ring, 128 KiB (WINTUN_MIN_RING_CAPACITY)."""
MAX_CAPACITY = 0x4000000
"""Bytes of the largest ring, 64 MiB (WINTUN_MAX_RING_CAPACITY)."""
MAX_NAME = 15  # IFNAMSIZ of <net/if.h> less the final zero.
MAX_TUNNEL_TYPE = 127  # Characters of 16 bits: MAX_ADAPTER_NAME of <wintun.h> less the final zero.
_DOMAIN = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.ASCII | re.IGNORECASE
)  # RFC 1035, 2.3.4.
_FORBIDDEN = frozenset(b"/:\0 \t\n\v\f\r\xa0")  # White space as the kernel sees it, which reads bytes as Latin-1.


def unknown_name(what: str, name: str, known: Iterable[str], of: str = "") -> InvalidSetting:
    """Return the error for a name that is not among `known`. It suggests a similar one, or else tells all.

    `what` is the kind of name, such as "option", and `of` its owner, such as "tun".
    """
    from difflib import get_close_matches  # Only mistakes need it.

    spellings = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), spellings, 1, _SIMILAR)
    advice = f"did you mean {spellings[close[0]]}?" if close else f"expected one of {', '.join(spellings.values())}"
    return InvalidSetting(f"unknown {what} {name!r}{of and f' of {of}'}; {advice}")


def check_name(name: str, *, template: bool = False) -> str:
    """Return `name`; raise `InvalidSetting` if no interface can have it. `template` allows one `%d`.

    A name has at most 15 bytes, no slash, colon or white space, and is not `.` or `..` (Linux: dev_valid_name()).
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
        rule = "one %d is allowed, for a number that the system chooses" if template else "none is allowed here"
        raise InvalidSetting(f"adapter name {name!r}: of percent signs, {rule}")
    return name


def check_mtu(mtu: int, *, ipv6: bool) -> int:
    """Return `mtu` in bytes; raise `InvalidSetting` unless it is 68 to 65535, with IPv6 at least 1280."""
    if not MIN_MTU <= mtu <= MAX_MTU:
        raise InvalidSetting(f"MTU {mtu}: give {MIN_MTU} to {MAX_MTU} bytes")
    if ipv6 and mtu < MIN_IPV6_MTU:
        raise InvalidSetting(f"MTU {mtu}: IPv6 needs at least {MIN_IPV6_MTU} bytes (RFC 8200, section 5)")
    return mtu


def check_queues(queues: int) -> int:
    """Return `queues`; raise `InvalidSetting` unless it is 1 to 255."""
    if not 1 <= queues <= MAX_QUEUES:
        raise InvalidSetting(f"{queues} queues: give 1 to {MAX_QUEUES}")
    return queues


def check_capacity(capacity: int) -> int:
    """Return `capacity` in bytes; raise `InvalidSetting` unless it is a power of two from 128 KiB to 64 MiB."""
    if not MIN_CAPACITY <= capacity <= MAX_CAPACITY or capacity & (capacity - 1):
        raise InvalidSetting(
            f"capacity {capacity}: give a power of two from {MIN_CAPACITY} (128 KiB) to {MAX_CAPACITY} (64 MiB)"
        )
    return capacity


class WindowsSettings:
    """The settings that only adapters on Windows have, for `Adapter.create(windows=...)`."""

    __slots__ = ("dns", "guid", "search", "tunnel_type")

    def __init__(
        self,
        *,
        dns: Iterable[str | Server] = (),
        search: Iterable[str] = (),
        guid: "str | UUID | None" = None,
        tunnel_type: str | None = None,
    ) -> None:
        """Parse and check the settings. Raises `InvalidSetting`."""
        self.dns = parse_servers(dns)
        """The DNS servers that Windows asks while the adapter exists."""
        self.search = parse_domains(search)
        """The domains that Windows appends to short names."""
        self.guid = _parse_guid(guid)
        """The GUID by which Windows recognises the adapter; None: one derived from the name."""
        self.tunnel_type = None if tunnel_type is None else _check_tunnel_type(tunnel_type)
        """The description of the adapter; None: threepipe."""


class AdapterSettings(NamedTuple):
    """The settings for `Adapter.create`, parsed."""

    name: str
    addresses: tuple[Address, ...] = ()
    routes: tuple[Network, ...] = ()
    mtu: int | None = None
    metric: int | None = None
    netns: NamespaceName | None = None
    persistent: bool = False
    owner: str | int | None = None
    group: str | int | None = None
    offload: bool = True
    queues: int = 1
    windows: WindowsSettings | None = None
    packet_information: bool = False

    def checked(self) -> Self:
        """Return the settings unchanged. Raises `InvalidSetting` if no machine could apply them."""
        check_name(self.name, template=True)
        if self.mtu is not None:
            check_mtu(self.mtu, ipv6=any(item.version == 6 for item in self.addresses + self.routes))
        check_queues(self.queues)
        if self.metric is not None and not 1 <= self.metric <= MAX_METRIC:
            raise InvalidSetting(f"metric {self.metric}: give 1 to {MAX_METRIC}; the smallest is preferred")
        if self.windows is not None and self.windows.guid is not None and "%d" in self.name:
            raise InvalidSetting(
                f"a GUID belongs to one adapter: give a name without %d, or leave out {self.windows.guid}"
            )
        if not self.persistent and (self.owner is not None or self.group is not None):
            raise InvalidSetting("owner and group need a persistent adapter; set persistent, or leave them out")
        return self


def parse_addresses(addresses: Iterable[str | Address]) -> tuple[Address, ...]:
    """Parse addresses such as 10.6.7.1/24; without a prefix length, the address is that of a single host."""
    parsed = _parse_all("address", addresses, ipaddress.ip_interface, "10.6.7.1/24 or fd00::1/64")
    for address in parsed:
        if address.ip.is_multicast or address.ip.is_unspecified or address.ip.is_loopback:
            raise InvalidSetting(f"address {str(address)!r} cannot be assigned to an adapter; give a unicast address")
    return parsed


def parse_routes(routes: Iterable[str | Network]) -> tuple[Network, ...]:
    """Parse networks such as 10.0.0.0/8."""
    return _parse_all("route", routes, ipaddress.ip_network, "10.0.0.0/8, 0.0.0.0/0 or fd00::/8")


def parse_domains(domains: Iterable[str]) -> tuple[str, ...]:
    """Parse search domains such as example.org."""
    return _parse_all("search domain", domains, _domain, "example.org, with other letters in their xn-- form")


def parse_servers(servers: Iterable[str | Server]) -> tuple[Server, ...]:
    """Parse addresses of DNS servers such as 10.6.7.53."""
    parsed = _parse_all("DNS server", servers, ipaddress.ip_address, "10.6.7.53 or fd00::53")
    for server in parsed:
        if server.is_multicast or server.is_unspecified:
            raise InvalidSetting(f"DNS server {str(server)!r} cannot be asked; give a unicast address")
    return parsed


def _parse_guid(guid: "str | UUID | None") -> "UUID | None":
    """Parse a GUID, with or without braces."""
    from uuid import UUID  # Loads platform, which no system but Windows needs here.

    try:
        return UUID(guid) if isinstance(guid, str) else guid
    except ValueError:
        example = "8f1b2a64-5d3e-4c0b-9a77-2e6d1c0f4b93"
        raise InvalidSetting(f"GUID {guid!r}: expected 32 hexadecimal digits; write it like {example}") from None


def _domain(text: str) -> str:
    if not _DOMAIN.fullmatch(text):
        raise ValueError("not a domain name")
    return text


def _check_tunnel_type(text: str) -> str:
    length = len(text.encode("utf-16-le", "surrogatepass")) // 2
    if not 1 <= length <= MAX_TUNNEL_TYPE or not text.isprintable():
        raise InvalidSetting(f"tunnel type {text!r}: give 1 to {MAX_TUNNEL_TYPE} printable characters")
    return text


def _parse_all(what: str, items: Iterable[Any], parse: Callable[[Any], Item], example: str) -> tuple[Item, ...]:
    # A single value is an easy mistake; iterating over it would give letters or hosts.
    if isinstance(items, (str, ipaddress.IPv4Network, ipaddress.IPv6Network)):
        raise InvalidSetting(f"{what} {str(items)!r}: give a list, even for one")
    parsed = []
    for item in items:
        try:
            parsed.append(parse(item))
        except ValueError as error:
            raise InvalidSetting(f"{what} {item!r}: {error}; write it like {example}") from None
        if "%" in str(item):
            raise InvalidSetting(f"{what} {item!r}: leave out the zone (the percent sign and what follows)")
    return tuple(parsed)
