"""Addresses, routes, MTU and statistics of interfaces, through pyroute2, which only this file knows.

Every function is one exchange with the kernel, in the network namespace of the thread that calls it.
"""

import sys

assert sys.platform == "linux"

import errno
import ipaddress
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from threepipe.backend import AdapterInfo, AdapterStatistics
from threepipe.errors import (
    AdapterError,
    AdapterGone,
    AdapterNotFound,
    IPv6Unavailable,
    LinkDown,
    PermissionDenied,
)
from threepipe.ring import record_length
from threepipe.settings import AdapterSettings, Address, Network

__all__ = ["NO_IPV6", "configure", "describe", "describe_all", "find", "link_up", "queues", "set_mtu"]

log = logging.getLogger("threepipe")

# <linux/if.h>, <linux/if_addr.h>, <linux/rtnetlink.h>
_IFF_UP = 0x1
_IFF_RUNNING = 0x40
_IFF_LOWER_UP = 0x10000
_IFA_F_NODAD = 0x02
_RT_SCOPE_LINK = 253
_RT_TABLE_MAIN = 254
_RTPROT_KERNEL = 2
_NLM_F_DUMP_INTR = 0x10  # <linux/netlink.h>
_IFF_TUN_TYPE = 1  # IFLA_TUN_TYPE of a layer-3 device; 2 is a TAP.

NO_IPV6 = frozenset({errno.EACCES, errno.EOPNOTSUPP, errno.EAFNOSUPPORT})
"""The errors with which the kernel refuses IPv6 addresses and routes where IPv6 is disabled."""
_SECONDS_FOR_LINK = 2.0
_DUMP_TRIES = 5


def configure(index: int, settings: AdapterSettings) -> None:
    """Give the interface its MTU, addresses and routes, and set it up (its carrier is another matter)."""
    with _netlink(settings.name) as ipr:
        if settings.mtu is not None:
            ipr.link("set", index=index, mtu=settings.mtu)
        ipr.link("set", index=index, state="up")
        _add_all(ipr, index, settings)


def _add_all(ipr: Any, index: int, settings: AdapterSettings) -> None:
    networks = {address.network for address in settings.addresses}  # Whose routes the kernel makes with the address.
    wanted: dict[tuple[Callable[[Any, int, Any, int | None], None], Address | Network], None] = dict.fromkeys(
        [(_add_address, address) for address in settings.addresses]
        + [(_add_route, route) for route in settings.routes if route not in networks]
    )
    refused: list[str] = []
    for add, item in wanted:
        try:
            add(ipr, index, item, settings.metric)
        except NetlinkError as error:
            if item.version == 6 and error.code in NO_IPV6:
                refused.append(str(item))
            elif error.code == errno.EEXIST:
                raise AdapterError(error.code, f"{item} for {settings.name}: the system has it already") from None
            else:
                raise
    if not refused:
        return
    text = (
        f"IPv6 is disabled here, so {settings.name} goes without {', '.join(refused)};"
        " to enable it: sysctl net.ipv6.conf.all.disable_ipv6=0"
    )
    if len(refused) == len(wanted):
        raise IPv6Unavailable(errno.EAFNOSUPPORT, text)
    log.warning(text)


def _add_address(ipr: Any, index: int, address: Address, metric: int | None) -> None:
    # Without duplicate address detection: nobody else is on this link, and a tentative address is of no use.
    flags = {"flags": _IFA_F_NODAD} if address.version == 6 else {}
    # The kernel makes the route to the address's network, and gives it the same priority.
    priority = {} if metric is None else {"rt_priority": metric}
    ipr.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags, **priority)


def _add_route(ipr: Any, index: int, route: Network, metric: int | None) -> None:
    family = {"family": socket.AF_INET6} if route.version == 6 else {"scope": _RT_SCOPE_LINK}
    priority = {} if metric is None else {"priority": metric}
    ipr.route("add", dst=str(route), oif=index, **family, **priority)


def set_mtu(index: int, name: str, mtu: int) -> None:
    with _netlink(name) as ipr:
        ipr.link("set", index=index, mtu=mtu)


def link_up(index: int, name: str, capacity: int, put_carrier: Callable[[], None]) -> None:
    """Let `capacity` bytes of packets wait for the program, put the carrier on, see the link come up.

    Where this user may not change the queue it stays as it is. Raises `LinkDown` where the interface
    is down and this user may not set it up.
    """
    with _netlink(name) as ipr:
        (link,) = ipr.link("get", index=index)
        # The driver's ring counts packets: as many as the capacity holds of the longest ones.
        queue = max(1, capacity // record_length(link.get("mtu")))
        try:
            if link.get("txqlen") != queue:
                ipr.link("set", index=index, txqlen=queue)
            if not link["flags"] & _IFF_UP:
                ipr.link("set", index=index, state="up")
        except NetlinkError as error:
            if error.code != errno.EPERM:
                raise
            if not link["flags"] & _IFF_UP:
                raise LinkDown(
                    errno.ENETDOWN,
                    f"{name} is set down, and this user may not change that; root: ip link set {name} up",
                ) from None
        put_carrier()
        # The kernel starts its transmit queue a moment after the carrier, and until then it drops.
        deadline = time.monotonic() + _SECONDS_FOR_LINK
        while not ipr.link("get", index=index)[0]["flags"] & _IFF_RUNNING and time.monotonic() < deadline:
            time.sleep(0.001)


def find(name: str) -> tuple[int, bool]:
    """The index of the interface `name`, and whether it can have several queues. Raises `AdapterNotFound`."""
    with _netlink(name) as ipr:
        if found := ipr.link_lookup(ifname=name):
            (link,) = ipr.link("get", index=found[0])
            return int(found[0]), bool(_tun_data(link, "IFLA_TUN_MULTI_QUEUE"))
    raise AdapterNotFound(errno.ENODEV, f"there is no adapter {name}; threepipe adapter list shows those there are")


def queues(index: int, name: str) -> int:
    """How many queues of the interface programs hold now, where it can have several."""
    with _netlink(name) as ipr:
        (link,) = ipr.link("get", index=index)
        return sum(_tun_data(link, f"IFLA_TUN_NUM_{kind}QUEUES") or 0 for kind in ("", "DISABLED_"))


def describe(index: int, name: str) -> AdapterInfo:
    """The interface as it is now. Raises `AdapterGone`."""
    with _netlink(name) as ipr:
        (link,) = ipr.link("get", index=index)
        return _info(link, _addresses(ipr, index=index), _routes(ipr, oif=index))


def describe_all() -> list[AdapterInfo]:
    """All layer-3 TUN interfaces."""
    with _netlink("interfaces") as ipr:
        addresses, routes = _addresses(ipr), _routes(ipr)
        links = [link for link in _dump(ipr.get_links) if _tun_data(link, "IFLA_TUN_TYPE") == _IFF_TUN_TYPE]
        return [_info(link, addresses, routes) for link in links]


def _info(link: Any, addresses: dict[int, list[Address]], routes: dict[int, list[Network]]) -> AdapterInfo:
    counts = link.get("stats64") or {}
    up = _IFF_UP | _IFF_LOWER_UP
    return AdapterInfo(
        name=os.fsdecode(link.get("ifname")),  # Bytes, where it is not UTF-8.
        index=link["index"],
        mtu=link.get("mtu"),
        link_up=link["flags"] & up == up,
        persistent=bool(_tun_data(link, "IFLA_TUN_PERSIST")),
        owner=_tun_data(link, "IFLA_TUN_OWNER"),
        group=_tun_data(link, "IFLA_TUN_GROUP"),
        addresses=tuple(addresses.get(link["index"], ())),
        routes=tuple(routes.get(link["index"], ())),
        # The kernel transmits what the program receives.
        statistics=AdapterStatistics(
            received_packets=counts.get("tx_packets", 0),
            received_bytes=counts.get("tx_bytes", 0),
            received_dropped=counts.get("tx_dropped", 0),
            sent_packets=counts.get("rx_packets", 0),
            sent_bytes=counts.get("rx_bytes", 0),
            sent_dropped=counts.get("rx_dropped", 0) + counts.get("rx_errors", 0),
        ),
    )


def _tun_data(link: Any, attribute: str) -> Any:
    """An attribute of the TUN driver's own, or None, also for other kinds of interface."""
    kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    data = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA") if kind == "tun" else None
    return data.get_attr(attribute) if data is not None else None


def _dump(read: Callable[[], Iterable[Any]]) -> list[Any]:
    """All messages of a dump, read again where the kernel says that something changed under it."""
    for _ in range(_DUMP_TRIES):
        messages = list(read())
        if not any(message["header"]["flags"] & _NLM_F_DUMP_INTR for message in messages):
            break
    return messages


def _addresses(ipr: Any, **only: int) -> dict[int, list[Address]]:
    """Index of an interface -> its addresses."""
    found: dict[int, list[Address]] = {}
    for message in _dump(lambda: ipr.get_addr(**only)):
        # IFA_LOCAL is the own one on a link with a peer address; IPv6 has it only there.
        own = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        found.setdefault(message["index"], []).append(ipaddress.ip_interface((own, message["prefixlen"])))
    return found


def _routes(ipr: Any, **only: int) -> dict[int, list[Network]]:
    """Index of an interface -> its routes, but for those the kernel makes by itself."""
    found: dict[int, list[Network]] = {}
    for message in _dump(lambda: ipr.get_routes(table=_RT_TABLE_MAIN, **only)):
        if message["proto"] != _RTPROT_KERNEL and (index := message.get("oif")):
            # The default route has no destination.
            destination = message.get("dst") or ("0.0.0.0" if message["family"] == socket.AF_INET else "::")
            found.setdefault(index, []).append(ipaddress.ip_network((destination, message["dst_len"])))
    return found


@contextmanager
def _netlink(name: str) -> Iterator[Any]:
    """A netlink socket; what the kernel refuses becomes an error of ours about the interface `name`."""
    try:
        with IPRoute() as ipr:
            yield ipr
    except NetlinkError as error:
        code = error.code
        if code == errno.ENODEV:
            raise AdapterGone(code, f"{name} was removed by somebody else; make or open it again") from None
        if code == errno.EPERM:
            raise PermissionDenied(code, f"setting up {name} takes CAP_NET_ADMIN: run as root") from None
        raise AdapterError(code, f"{name}: {os.strerror(code)}") from None
