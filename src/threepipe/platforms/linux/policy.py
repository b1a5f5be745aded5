"""Policy routing on Linux: all traffic through an interface, but for what is marked; in tables of one's own.

As wg-quick(8) does it: what has the mark, the device's own datagrams, goes the way it went before; all else looks
into a table of its own first, after more particular routes of the main one. Everything is undone at the end.
"""

import sys

assert sys.platform == "linux"

import errno
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError

from threepipe.errors import AdapterError
from threepipe.platforms.linux.netlink import NO_IPV6
from threepipe.settings import Network

__all__ = ["free_table", "path_mtu", "routed"]

log = logging.getLogger("threepipe")

_FIRST_TABLE = 51820
_TABLE_MAIN = 254
_FIB_RULE_INVERT = 2  # <linux/fib_rules.h>
_ON_DUTY = 51
"""A protocol of rules, as <linux/rtnetlink.h> numbers who makes them, that nobody else has: see `_accept_marks`."""
_VALID_MARK = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def free_table() -> int:
    """The number of a routing table that nobody uses, from 51820 on; it serves as a mark too."""
    with IPRoute() as ipr:
        used = {route.get("table") for family in _FAMILIES.values() for route in ipr.get_routes(family=family)}
    table = _FIRST_TABLE
    while table in used:
        table += 1
    return table


def path_mtu(address: str) -> int:
    """Bytes that a packet to `address` may have on the first link of its way; 1500 where there is no way yet."""
    with IPRoute() as ipr:
        try:
            (route, *_) = ipr.route("get", dst=address)
            if (mtu := route.get_nested("metrics", "mtu")) is not None:
                return int(mtu)
            return int(ipr.link("get", index=route.get("oif"))[0].get("mtu"))
        except (NetlinkError, ValueError):
            return 1500


@contextmanager
def routed(index: int, networks: Sequence[Network], table: int, mark: int | None) -> Iterator[None]:
    """While it lasts, packets for `networks` go to the interface `index`, by `table`.

    With a `mark`, everything that does not have it looks into that table; without, the table is another's business.
    Raises `AdapterError`.
    """
    with IPRoute() as ipr, ExitStack() as undo:
        for network in networks:
            _add(ipr, undo, index, network, table)
        if mark is not None:
            for version in sorted({network.version for network in networks}):
                protocol = _accept_marks(ipr, undo) if version == 4 else None
                _add_rules(ipr, undo, _FAMILIES[version], table, mark, protocol)
                if protocol is not None:
                    _VALID_MARK.write_text("1")  # Another one may have ended just now, and not have seen us.
        yield


def _add(ipr: IPRoute, undo: ExitStack, index: int, network: Network, table: int) -> None:
    route = {"dst": str(network), "oif": index, "table": table, "family": _FAMILIES[network.version]}
    try:
        ipr.route("add", **route)
    except NetlinkError as error:
        if network.version == 6 and error.code in NO_IPV6:
            log.warning(f"IPv6 is disabled here, so there is no route for {network}")
            return
        if error.code == errno.EEXIST:
            raise AdapterError(
                error.code, f"there is a route for {network} already; say Table = off to leave it"
            ) from None
        raise AdapterError(error.code, f"no route for {network}: {os.strerror(error.code)}") from None
    undo.callback(_forgiving, ipr.route, "del", **route)


def _add_rules(ipr: IPRoute, undo: ExitStack, family: int, table: int, mark: int, protocol: int | None) -> None:
    # Before all rules but the first, which is that for local addresses; and the second of these before the first.
    before = min(rule.get("priority") or 0xFFFF for rule in ipr.get_rules(family=family))
    rules: list[dict[str, int]] = [
        {"family": family, "table": table, "fwmark": mark, "flags": _FIB_RULE_INVERT, "priority": before - 1},
        {"family": family, "table": _TABLE_MAIN, "suppress_prefixlen": 0, "priority": before - 2},
    ]
    for rule in rules:
        if protocol is not None:
            rule["protocol"] = protocol
        try:
            ipr.rule("add", **rule)
        except NetlinkError as error:
            raise AdapterError(error.code, f"no routing rule can be made: {os.strerror(error.code)}") from None
        undo.callback(_forgiving, ipr.rule, "del", **rule)


def _accept_marks(ipr: IPRoute, undo: ExitStack) -> int | None:
    """Have the reverse path filter go by marks too, or it drops the answers to what is marked.

    The last that needs it puts it back as it was before the first. So whose duty that is says so in its rules, and
    takes it over from them; what that protocol is, is returned. None where it was so before any of them.
    """
    try:
        if _VALID_MARK.read_text().strip() != "0" and not _is_on_duty(ipr):
            return None
        undo.callback(_accept_no_marks, ipr)
        _VALID_MARK.write_text("1")
    except OSError as error:
        log.warning(f"{_VALID_MARK}: {error.strerror}; where rp_filter is strict, answers may be dropped")
        return None
    return _ON_DUTY


def _accept_no_marks(ipr: IPRoute) -> None:
    """Where nobody needs them any more."""
    try:
        if not _is_on_duty(ipr):
            _VALID_MARK.write_text("0")
    except OSError as error:
        log.warning(f"{_VALID_MARK}: {error.strerror}")


def _is_on_duty(ipr: IPRoute) -> bool:
    """Whether there is one; what a process that was killed has left looks into a table where nothing is any more."""
    tables = {route.get("table") for route in ipr.get_routes(family=socket.AF_INET)}
    rules = [rule for rule in ipr.get_rules(family=socket.AF_INET) if rule.get("protocol") == _ON_DUTY]
    return any(rule.get("fwmark") is not None and rule.get("table") in tables for rule in rules)


def _forgiving(change: object, *arguments: object, **settings: object) -> None:
    """Undo something that may have gone with the interface."""
    try:
        change(*arguments, **settings)  # type: ignore[operator]
    except NetlinkError as error:
        log.debug("%s %s: %s", arguments, settings, error)
