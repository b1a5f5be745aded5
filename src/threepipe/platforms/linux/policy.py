"""Policy routing on Linux: all traffic through an interface, except marked packets, by a separate table.

As in wg-quick(8): marked packets, which are the device's own datagrams, keep their route. All other packets use the
separate table, after the more specific routes of the main table. Everything is undone at the end.
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
"""The protocol (the originator, see <linux/rtnetlink.h>) of our rules, unused by others: see `_accept_marks`."""
_VALID_MARK = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def free_table() -> int:
    """Return the number of an unused routing table, from 51820 on; it serves as the mark too."""
    with IPRoute() as ipr:
        used = {route.get("table") for family in _FAMILIES.values() for route in ipr.get_routes(family=family)}
    table = _FIRST_TABLE
    while table in used:
        table += 1
    return table


def path_mtu(address: str) -> int:
    """Return the MTU in bytes of the route to `address` or of its first link; 1500 without a route."""
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
    """Route packets for `networks` to the interface `index` by `table`, until the block ends.

    With a `mark`, rules send all packets without that mark to the table; without, the caller adds the rules. Raises
    `AdapterError`.
    """
    with ExitStack() as undo:
        with IPRoute() as ipr:  # Not kept: another thread may end the block, and pyroute2 has a socket for each thread.
            for network in networks:
                _add(ipr, undo, index, network, table)
            if mark is not None:
                for version in sorted({network.version for network in networks}):
                    protocol = _accept_marks(ipr, undo) if version == 4 else None
                    _add_rules(ipr, undo, _FAMILIES[version], table, mark, protocol)
                    if protocol is not None:
                        _VALID_MARK.write_text("1")  # Another device may have reset it before our rules existed.
        yield


def _add(ipr: IPRoute, undo: ExitStack, index: int, network: Network, table: int) -> None:
    route = {"dst": str(network), "oif": index, "table": table, "family": _FAMILIES[network.version]}
    try:
        ipr.route("add", **route)
    except NetlinkError as error:
        if network.version == 6 and error.code in NO_IPV6:
            log.warning(f"IPv6 is disabled here, so {network} gets no route")
            return
        if error.code == errno.EEXIST:
            raise AdapterError(
                error.code, f"a route for {network} exists already; to keep it, set Table = off"
            ) from None
        raise AdapterError(error.code, f"the route for {network} was refused: {os.strerror(error.code)}") from None
    undo.callback(_delete, "route", **route)


def _add_rules(ipr: IPRoute, undo: ExitStack, family: int, table: int, mark: int, protocol: int | None) -> None:
    # Ours precede all rules except that for local addresses, and the second of ours precedes the first.
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
            raise AdapterError(error.code, f"a routing rule was refused: {os.strerror(error.code)}") from None
        undo.callback(_delete, "rule", **rule)


def _accept_marks(ipr: IPRoute, undo: ExitStack) -> int | None:
    """Set src_valid_mark, without which the reverse path filter drops the answers to marked packets.

    The last device to exit resets it, as no other device is on duty then. A device on duty marks its rules by the
    protocol `_ON_DUTY`; return that. Return None if the value was set before any device needed it.
    """
    try:
        if _VALID_MARK.read_text().strip() != "0" and not _is_on_duty(ipr):
            return None
        undo.callback(_accept_no_marks)
        _VALID_MARK.write_text("1")
    except OSError as error:
        log.warning(f"{_VALID_MARK}: {error.strerror}; if rp_filter is strict, answers may be dropped")
        return None
    return _ON_DUTY


def _accept_no_marks() -> None:
    """Reset src_valid_mark if no other device needs it."""
    try:
        with IPRoute() as ipr:
            if not _is_on_duty(ipr):
                _VALID_MARK.write_text("0")
    except OSError as error:
        log.warning(f"{_VALID_MARK}: {error.strerror}")


def _is_on_duty(ipr: IPRoute) -> bool:
    """Return True if a device is on duty. Its rules lead to a table with routes, unlike those of a killed process."""
    tables = {route.get("table") for route in ipr.get_routes(family=socket.AF_INET)}
    rules = [rule for rule in ipr.get_rules(family=socket.AF_INET) if rule.get("protocol") == _ON_DUTY]
    return any(rule.get("fwmark") is not None and rule.get("table") in tables for rule in rules)


def _delete(what: str, **settings: object) -> None:
    """Delete a route or rule, which may have vanished with the interface."""
    with IPRoute() as ipr:
        try:
            getattr(ipr, what)("del", **settings)
        except NetlinkError as error:
            log.debug("%s %s: %s", what, settings, error)
