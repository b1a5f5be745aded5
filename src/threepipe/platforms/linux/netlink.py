"""Interfaces of the kernel, through pyroute2: finding and describing them, their MTU, and setting the link up.

Functions that take a name open a netlink socket in the network namespace of the calling thread. The others take one
that is open, or a message of one. `addressing` changes addresses and routes.
"""

import sys

assert sys.platform == "linux"

import errno
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from threepipe.backend import AdapterInfo, AdapterStatistics
from threepipe.errors import (
    AdapterError,
    AdapterGone,
    AdapterNotFound,
    AdapterUnavailable,
    LinkDown,
    NameTaken,
    PermissionDenied,
)
from threepipe.platforms.linux import tun
from threepipe.platforms.linux.privilege import become
from threepipe.ring import record_length
from threepipe.settings import Address, Network

__all__ = [
    "delete",
    "describe",
    "describe_all",
    "destination",
    "find",
    "is_running",
    "is_up",
    "link_up",
    "make_no_link_local",
    "make_room",
    "open_netlink",
    "own_addresses",
    "own_routes",
    "pyroute2",
    "queues",
    "set_mtu",
    "taken",
    "wait_for_link",
]

# <linux/if.h>, <linux/if_addr.h>, <linux/rtnetlink.h>
_IFF_UP = 0x1
_IFF_RUNNING = 0x40
_IFF_LOWER_UP = 0x10000
_RT_TABLE_MAIN = 254
_RTPROT_KERNEL = 2
_NLM_F_DUMP_INTR = 0x10  # <linux/netlink.h>
_ARPHRD_NONE = 0xFFFE  # <linux/if_arp.h>
_IFF_TUN_TYPE = 1  # IFLA_TUN_TYPE of a layer-3 device; a TAP device has 2.
_IN6_ADDR_GEN_MODE_NONE = 1  # <linux/if_link.h>

_SECONDS_FOR_LINK = 2.0
_DUMP_TRIES = 5


def make_no_link_local(index: int, name: str) -> None:
    """Have the kernel make no link-local address when it takes that link up. Raises `AdapterError`."""
    mode = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _IN6_ADDR_GEN_MODE_NONE]]}]]}
    with open_netlink(name) as ipr:
        ipr.link("set", index=index, IFLA_AF_SPEC=mode)


def set_mtu(index: int, name: str, mtu: int) -> None:
    with open_netlink(name) as ipr:
        ipr.link("set", index=index, mtu=mtu)


def link_up(index: int, name: str, capacity: int, switch_carrier_on: Callable[[], None]) -> None:
    """Make room for `capacity` bytes of waiting packets, switch the carrier on, and wait for the link.

    Raises as `make_room` does.
    """
    with open_netlink(name) as ipr:
        _make_room(ipr, index, name, capacity)
        switch_carrier_on()
        wait_for_link(lambda: _is_running(ipr, index))


def make_room(index: int, name: str, capacity: int) -> None:
    """Make room for `capacity` bytes of waiting packets, and set the interface up, which leaves its carrier alone.

    The queue keeps its length if this user may not change it. Raises `LinkDown` if the interface is down and this
    user may not set it up.
    """
    with open_netlink(name) as ipr:
        _make_room(ipr, index, name, capacity)


def _make_room(ipr: Any, index: int, name: str, capacity: int) -> None:
    link = _link(ipr, index)
    # The driver's ring counts packets: take as many of the longest as fit into the capacity.
    queue = max(1, capacity // record_length(link.get("mtu")))
    try:
        if link.get("txqlen") not in (None, queue):
            ipr.link("set", index=index, txqlen=queue)
        if not link["flags"] & _IFF_UP:
            ipr.link("set", index=index, state="up")
    except pyroute2().NetlinkError as error:
        if error.code != errno.EPERM:
            raise
        if not link["flags"] & _IFF_UP:
            raise LinkDown(
                errno.ENETDOWN,
                f"{name} is down, and this user may not set it up; as root: ip link set {name} up",
            ) from None


def wait_for_link(running: Callable[[], bool]) -> None:
    """Wait until the link is `running`, two seconds at most.

    The kernel starts its transmit queue a moment after the carrier, and drops packets until then.
    """
    deadline = time.monotonic() + _SECONDS_FOR_LINK
    while not running() and time.monotonic() < deadline:
        time.sleep(0.001)


def is_running(index: int, name: str) -> bool:
    """Return True if the link is up and passes packets."""
    with open_netlink(name) as ipr:
        return _is_running(ipr, index)


def _is_running(ipr: Any, index: int) -> bool:
    return bool(_link(ipr, index)["flags"] & _IFF_RUNNING)


def delete(index: int, name: str) -> None:
    """Remove the interface, even if programs have it open. Raises `AdapterGone`."""
    with open_netlink(name) as ipr:
        ipr.link("del", index=index)


def find(name: str) -> tuple[int, str, bool]:
    """Return index and name of the interface that `name` or an altname is of, and True if it can have several queues.

    Raises `AdapterNotFound` if there is none, or one of another kind.
    """
    with open_netlink(name) as ipr:
        if found := ipr.link_lookup(ifname=name):
            link = _link(ipr, found[0])
            if kind := _other_kind(link):
                raise AdapterNotFound(errno.EINVAL, f"{name} is not a layer-3 TUN adapter, but {kind}; open another")
            return int(found[0]), _name(link), bool(_tun_data(link, "IFLA_TUN_MULTI_QUEUE"))
    raise AdapterNotFound(errno.ENODEV, f"there is no adapter {name}; threepipe adapter list shows all adapters")


def taken(name: str) -> NameTaken:
    """Return the error for creating an interface of that name, which exists."""
    kind, advice = "", ", or open it"
    with suppress(AdapterError), open_netlink(name) as ipr:
        for index in ipr.link_lookup(ifname=name):
            if other := _other_kind(_link(ipr, index)):
                kind, advice = f", {other}", ""
    return NameTaken(
        errno.EBUSY, f"an interface named {name} exists{kind}; choose another name, a template like tp%d{advice}"
    )


def _is_tun(link: Any) -> bool:
    if link.get("linkinfo") is None:  # gVisor tells no kinds.
        return bool(link["ifi_type"] == _ARPHRD_NONE)
    return bool(_tun_data(link, "IFLA_TUN_TYPE") == _IFF_TUN_TYPE)


def _other_kind(link: Any) -> str:
    """Return the kind of an interface that cannot be opened; empty for a TUN adapter and for an unknown kind."""
    kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    if kind == "tun":
        return (
            "a TAP device, which carries Ethernet frames" if _tun_data(link, "IFLA_TUN_TYPE") != _IFF_TUN_TYPE else ""
        )
    return f"an interface of the kind {kind}" if kind else ""


def queues(index: int, name: str) -> int:
    """Return how many queues of a multi-queue interface programs hold now."""
    with open_netlink(name) as ipr:
        link = _link(ipr, index)
        return sum(_tun_data(link, f"IFLA_TUN_NUM_{kind}QUEUES") or 0 for kind in ("", "DISABLED_"))


def describe(index: int, name: str) -> AdapterInfo:
    """Return the present state of the interface. Raises `AdapterGone`."""
    with open_netlink(name) as ipr:
        link = _link(ipr, index)
        return _info(link, _addresses(ipr, index=index), _routes(ipr, oif=index))


def describe_all() -> list[AdapterInfo]:
    """Return the state of all layer-3 TUN interfaces."""
    with open_netlink("interfaces") as ipr:
        addresses, routes = _addresses(ipr), _routes(ipr)
        links = [link for link in _dump(ipr.get_links) if _is_tun(link)]
        return [_info(link, addresses, routes) for link in links]


def _info(link: Any, addresses: dict[int, list[Address]], routes: dict[int, list[Network]]) -> AdapterInfo:
    counts = link.get("stats64") or {}
    up = _IFF_UP | _IFF_LOWER_UP
    name, link_up = _name(link), link["flags"] & up == up
    persistent = bool(_tun_data(link, "IFLA_TUN_PERSIST"))
    return AdapterInfo(
        name=name,
        index=link["index"],
        mtu=link.get("mtu"),
        link_up=link_up,
        persistent=persistent,
        owner=_tun_data(link, "IFLA_TUN_OWNER"),
        group=_tun_data(link, "IFLA_TUN_GROUP"),
        addresses=tuple(addresses.get(link["index"], ())),
        routes=tuple(routes.get(link["index"], ())),
        # The kernel transmits the packets that the program receives.
        statistics=AdapterStatistics(
            received_packets=counts.get("tx_packets", 0),
            received_bytes=counts.get("tx_bytes", 0),
            received_dropped=counts.get("tx_dropped", 0),
            sent_packets=counts.get("rx_packets", 0),
            sent_bytes=counts.get("rx_bytes", 0),
            sent_dropped=counts.get("rx_dropped", 0) + counts.get("rx_errors", 0),
        ),
        # The kernel takes the carrier away with the last descriptor.
        offload_left_on=persistent and not link["flags"] & _IFF_LOWER_UP and tun.keeps_offload(name),
    )


def _link(ipr: Any, index: int) -> Any:
    return ipr.link("get", index=index)[0]  # In gVisor an acknowledgement follows.


def is_up(ipr: Any, index: int) -> bool:
    """Return True if the interface is set up, with a carrier or without."""
    return bool(_link(ipr, index)["flags"] & _IFF_UP)


def _name(link: Any) -> str:
    return os.fsdecode(link.get("ifname"))  # pyroute2 gives bytes if the name is not UTF-8.


def _tun_data(link: Any, attribute: str) -> Any:
    """Return an attribute of the TUN driver, or None if it is missing or the interface is of another kind."""
    kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    data = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA") if kind == "tun" else None
    return data.get_attr(attribute) if data is not None else None


def _dump(read: Callable[[], Iterable[Any]]) -> list[Any]:
    """Return all messages of a dump, and read it again if the kernel says that it changed meanwhile."""
    for _ in range(_DUMP_TRIES):
        messages = list(read())
        if not any(message["header"]["flags"] & _NLM_F_DUMP_INTR for message in messages):
            break
    return messages


def _addresses(ipr: Any, **only: int) -> dict[int, list[Address]]:
    """Return the addresses of interfaces, by their index."""
    found: dict[int, list[Address]] = {}
    for address, message in own_addresses(ipr, **only):
        found.setdefault(message["index"], []).append(address)
    return found


def own_addresses(ipr: Any, **only: int) -> list[tuple[Address, Any]]:
    """Return the addresses of interfaces and their messages."""
    found: list[tuple[Address, Any]] = []
    for message in _dump(lambda: ipr.get_addr(**only)):
        # On a link with a peer address, IFA_LOCAL is our address; IPv6 has the attribute only there.
        own = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        found.append((ipaddress.ip_interface((own, message["prefixlen"])), message))
    return found


def _routes(ipr: Any, **only: int) -> dict[int, list[Network]]:
    """Return the routes of interfaces, by their index, without those that the kernel added itself."""
    found: dict[int, list[Network]] = {}
    for network, message in own_routes(ipr, **only):
        found.setdefault(message.get("oif"), []).append(network)
    return found


def own_routes(ipr: Any, **only: int) -> list[tuple[Network, Any]]:
    """Return the destinations and messages of all routes to interfaces, without those of the kernel itself."""
    messages = _dump(lambda: ipr.get_routes(table=_RT_TABLE_MAIN, **only))
    return [(destination(each), each) for each in messages if each["proto"] != _RTPROT_KERNEL and each.get("oif")]


def destination(message: Any) -> Network:
    """Return the destination of a route's message."""
    # The default route has no destination.
    destination = message.get("dst") or ("0.0.0.0" if message["family"] == socket.AF_INET else "::")
    return ipaddress.ip_network((destination, message["dst_len"]))


def pyroute2() -> Any:
    """Load and return the library pyroute2; this takes several times as long as loading threepipe itself.

    Raises `AdapterUnavailable` if it cannot be loaded. A reduced Python lacks modules that it needs, such as ssl.
    """
    try:
        import pyroute2
    except ImportError as error:
        text = (
            f"pyroute2 cannot be loaded ({error}); install what is missing (OpenWrt: python3-openssl python3-sqlite3)"
        )
        raise AdapterUnavailable(errno.ENOPKG, text) from error
    return pyroute2


@contextmanager
def open_netlink(name: str) -> Iterator[Any]:
    """Open a netlink socket, and turn errors of the kernel into `AdapterError` about the interface `name`."""
    try:
        with pyroute2().IPRoute() as ipr:
            yield ipr
    except pyroute2().NetlinkError as error:
        code = error.code
        if code == errno.ENODEV:
            raise AdapterGone(code, f"{name} was removed by another program; create or open it again") from None
        if code == errno.EPERM:
            raise PermissionDenied(code, f"setting up {name} needs CAP_NET_ADMIN; {become('CAP_NET_ADMIN')}") from None
        raise AdapterError(code, f"{name}: {os.strerror(code)}") from None
    except struct.error:
        # pyroute2 0.9.7 cannot read the refusals of gVisor.
        text = (
            f"this system refused a setting of {name}, and does not say why (gVisor?); leave out MTU, metric or routes"
        )
        raise AdapterError(errno.EOPNOTSUPP, text) from None
