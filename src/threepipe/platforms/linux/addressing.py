"""Addresses and routes of interfaces: adding them, and removing one without the others.

Every function opens a netlink socket in the network namespace of the calling thread.
"""

import sys

assert sys.platform == "linux"

import errno
import logging
import socket
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from threepipe.errors import AdapterError, IPv6Unavailable
from threepipe.platforms.linux.netlink import destination, is_up, open_netlink, own_addresses, own_routes, pyroute2
from threepipe.settings import AdapterSettings, Address, Network

__all__ = ["NO_IPV6", "add", "configure", "remove"]

_log = logging.getLogger("threepipe")

# <linux/if_addr.h>, <linux/rtnetlink.h>
_IFA_F_NODAD = 0x02
_RTN_LOCAL = 2
_RT_SCOPE_LINK = 253

_SECONDS_FOR_ROUTE = 2.0

NO_IPV6 = frozenset({errno.EACCES, errno.EOPNOTSUPP, errno.EAFNOSUPPORT})
"""The errors with which the kernel refuses IPv6 addresses and routes where IPv6 is disabled."""


def configure(index: int, settings: AdapterSettings) -> None:
    """Set the MTU, addresses and routes of the interface, and set it up (which leaves its carrier alone)."""
    with open_netlink(settings.name) as ipr:
        if settings.mtu is not None:
            ipr.link("set", index=index, mtu=settings.mtu)
        if not is_up(ipr, index):
            ipr.link("set", index=index, state="up")
        _add_all(ipr, index, settings)


_BESIDE_DEFAULT = (
    "give it another metric, or use default-route=MARK of an endpoint's address ('All traffic' in docs/pipe.md)"
)


def _add_all(ipr: Any, index: int, settings: AdapterSettings) -> None:
    networks = {address.network for address in settings.addresses}  # The kernel adds the routes of these.
    wanted: dict[tuple[Callable[[Any, int, Any, int | None], None], Address | Network], None] = dict.fromkeys(
        [(_add_address, address) for address in settings.addresses]
        + [(_add_route, route) for route in settings.routes if route not in networks]
    )
    refused: list[str] = []
    for add, item in wanted:
        try:
            add(ipr, index, item, settings.metric)
        except pyroute2().NetlinkError as error:
            if item.version == 6 and error.code in NO_IPV6:
                refused.append(str(item))
            elif error.code == errno.EEXIST:
                is_default = not getattr(item, "prefixlen", 1)
                advice = _BESIDE_DEFAULT if is_default else "leave it out"
                raise AdapterError(
                    error.code, f"{item} for {settings.name}: the system has it already; {advice}"
                ) from None
            else:
                raise
    if not refused:
        return
    text = (
        f"IPv6 is disabled here, so {settings.name} does not get {', '.join(refused)};"
        " to enable it: sysctl net.ipv6.conf.all.disable_ipv6=0"
    )
    if len(refused) == len(wanted):
        raise IPv6Unavailable(errno.EAFNOSUPPORT, text)
    _log.warning(text)


def _add_address(ipr: Any, index: int, address: Address, metric: int | None) -> None:
    # No duplicate address detection: the link has no other nodes, and a tentative address cannot be used.
    flags = {"flags": _IFA_F_NODAD} if address.version == 6 else {}
    # The kernel adds the route to the address's network with the same priority.
    priority = {} if metric is None else {"rt_priority": metric}
    plain = {"index": index, "address": str(address.ip), "prefixlen": address.network.prefixlen}
    try:
        ipr.addr("add", **plain, **flags, **priority)
    except struct.error:
        _add_plainly(ipr, address, plain)
    else:
        if address.version == 6:
            _wait_until_accepted(ipr, address, index)


def _wait_until_accepted(ipr: Any, address: Address, index: int) -> None:
    """Wait until packets to an IPv6 address of an interface that is up are accepted.

    The kernel adds the address's local route in a worker, a moment after the request, and drops packets until then.
    """
    deadline = time.monotonic() + _SECONDS_FOR_ROUTE
    while is_up(ipr, index) and time.monotonic() < deadline:
        with suppress(pyroute2().NetlinkError):  # There may be no route to it yet.
            if ipr.route("get", dst=str(address.ip))[0]["type"] == _RTN_LOCAL:
                return
        time.sleep(0.001)


def _add_plainly(ipr: Any, address: Address, settings: dict[str, Any]) -> None:
    """Add an address to an interface of gVisor, which knows neither its flags nor its metric.

    gVisor's refusals lack the request, so pyroute2 0.9.7 cannot read them (struct.error). It may refuse a request and
    yet carry it out, and accept an IPv6 address without IFA_LOCAL and not add it. So look.
    """
    with suppress(struct.error):
        ipr.addr("add", **settings, local=settings["address"])
    if address not in [each for each, _ in own_addresses(ipr, index=settings["index"])]:
        raise pyroute2().NetlinkError(errno.EOPNOTSUPP)


def _add_route(ipr: Any, index: int, route: Network, metric: int | None) -> None:
    family = {"family": socket.AF_INET6} if route.version == 6 else {"scope": _RT_SCOPE_LINK}
    priority = {} if metric is None else {"priority": metric}
    ipr.route("add", dst=str(route), oif=index, **family, **priority)


def add(index: int, name: str, item: Address | Network, metric: int | None) -> None:
    """Add an address or route to the interface, as `configure` does."""
    items: dict[str, Any] = {"routes": (item,)} if isinstance(item, Network) else {"addresses": (item,)}
    with open_netlink(name) as ipr:
        _add_all(ipr, index, AdapterSettings(name, metric=metric, **items))


def remove(index: int, name: str, item: Address | Network) -> None:
    """Remove an address or route of the interface.

    With an IPv4 address the kernel removes others of the same network (unless promote_secondaries is set), and with
    the last one all routes. Add those again.
    """
    with open_netlink(name) as ipr:
        addresses, routes = own_addresses(ipr, index=index), own_routes(ipr, oif=index)
        if isinstance(item, Network):
            _for_each(item, routes, lambda message: ipr.route("del", **_route_key(message)))
            return
        _for_each(item, addresses, lambda message: ipr.addr("del", **_address_key(message)))
        left: set[Address | Network] = {item, *(address for address, _ in own_addresses(ipr, index=index))}
        for address, message in addresses:
            if address not in left:
                ipr.addr("add", **_address_key(message))
        left = {route for route, _ in own_routes(ipr, oif=index)}
        for route, message in routes:
            if route not in left:
                ipr.route("add", **_route_key(message))


def _for_each(
    item: Address | Network, found: Iterable[tuple[Address | Network, Any]], do: Callable[[Any], Any]
) -> None:
    for each, message in found:
        if each == item:
            do(message)


_ADDRESS_ATTRIBUTES = ("local", "address", "broadcast", "label", "rt_priority")


def _address_key(message: Any) -> dict[str, Any]:
    """Return the arguments that delete an address, or make the same again."""
    key = {name: message[name] for name in ("index", "family", "prefixlen")}
    found = {name: message.get_attr(f"IFA_{name.upper()}") for name in _ADDRESS_ATTRIBUTES}
    return key | {name: value for name, value in found.items() if value is not None}


def _route_key(message: Any) -> dict[str, Any]:
    """Return the arguments that delete a route, or make the same again."""
    key = {name: message[name] for name in ("family", "proto", "scope")}
    key |= {"dst": str(destination(message)), "oif": message.get("oif")}
    priority = message.get("priority")
    return key if priority is None else key | {"priority": priority}
