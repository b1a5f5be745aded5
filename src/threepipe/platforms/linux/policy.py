"""Policy routing on Linux: all traffic through an interface, except marked packets, by a separate table.

As in wg-quick(8): marked packets, which are the device's own datagrams, keep their route. All other packets use the
separate table, after the more specific routes of the main table.

Routes vanish with their interface. Rules do not, and neither does src_valid_mark, so the caller gets to know them
before they are set, and passes them to `undivert`, perhaps in another process. Rules and routes have a protocol (their
originator, see <linux/rtnetlink.h>) that nobody else uses: `ip rule show proto 51`, `ip route show table all proto 52`.
"""

import sys

assert sys.platform == "linux"

import errno
import logging
import os
import re
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from threepipe.errors import AdapterError, InvalidSetting
from threepipe.platforms.linux.addressing import NO_IPV6
from threepipe.platforms.linux.namespace import opening
from threepipe.platforms.linux.netlink import pyroute2
from threepipe.settings import Network

__all__ = [
    "ROUTES_BY_MARK",
    "Rule",
    "add_routes",
    "divert",
    "free_table",
    "network_scope",
    "path_mtu",
    "routed",
    "table_number",
    "undivert",
]

Rule = dict[str, int]
"""A routing rule: its attributes (FRA_* of <linux/fib_rules.h>, as pyroute2 names them), family and flags."""

log = logging.getLogger("threepipe")

ROUTES_BY_MARK = True

_FIRST_TABLE = 51820
_TABLE_MAIN = 254
_FIB_RULE_INVERT = 2  # <linux/fib_rules.h>
_OURS_AND_MARK = 51
"""The protocol of our rules for IPv4, unless src_valid_mark was set before any device of ours needed it."""
_OURS = 52
"""The protocol of all other rules and routes of ours."""
_TABLES = {"default": 253, "main": 254, "local": 255}
"""The names of tables that ip(8) has built in (RT_TABLE_* of <linux/rtnetlink.h>)."""
_TABLE_FILES = [
    Path(folder, file) for folder in ("/usr/share/iproute2", "/etc/iproute2") for file in ("rt_tables", "rt_tables.d")
]
"""Files of names, and folders with more of them; the later ones decide."""
_TABLE_LINE = re.compile(r"\s*(0x[0-9a-fA-F]+|[0-9]+)\s+([^\s#]+)", re.ASCII)
_VALID_MARK = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_MISSING = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV}) | NO_IPV6


def network_scope() -> str:
    """Return a text that names this thread's network namespace, and this start of the system."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/thread-self/ns/net')}"


def free_table() -> int:
    """Return the number of an unused routing table, from 51820 on; it serves as the mark too.

    Rules that a killed process left are removed first, as new routes in their table would bring them back to life.
    Raises `AdapterError`.
    """
    with pyroute2().IPRoute() as ipr, opening():
        if left := _left_rules(ipr):
            log.warning(f"removed {len(left)} routing rules of a tunnel whose process was killed")
            _remove_rules(ipr, left)
        used = {route.get("table") for family in _FAMILIES.values() for route in ipr.get_routes(family=family)}
    table = _FIRST_TABLE
    while table in used:
        table += 1
    return table


def table_number(name: str) -> int:
    """Return the number of the routing table that ip(8) knows by `name`, or that `name` is. Raises `InvalidSetting`."""
    if name.isdecimal():
        return int(name)
    numbers = dict(_TABLES)
    for path in filter(Path.exists, _TABLE_FILES):
        for file in sorted(path.glob("*.conf")) if path.is_dir() else [path]:
            for line in file.read_bytes().decode(errors="replace").split("\n"):
                if found := _TABLE_LINE.match(line):
                    numbers[found[2]] = int(found[1], 16 if found[1].startswith("0x") else 10)
    try:
        return numbers[name]
    except KeyError:
        text = f"there is no routing table {name}; give its number, or name it in {_TABLE_FILES[-2]}"
        raise InvalidSetting(text) from None


def path_mtu(address: str) -> int:
    """Return the MTU in bytes of the route to `address` or of its first link; 1500 without a route.

    The zone of an address is the index of an interface.
    """
    host, _, zone = address.partition("%")
    with pyroute2().IPRoute() as ipr:
        try:
            (route, *_) = ipr.route("get", dst=host, **({"oif": int(zone)} if zone else {}))
            if (mtu := route.get_nested("metrics", "mtu")) is not None:
                return int(mtu)
            return int(ipr.link("get", index=route.get("oif"))[0].get("mtu"))
        except (pyroute2().NetlinkError, ValueError):
            return 1500


def add_routes(index: int, networks: Iterable[Network], table: int) -> None:
    """Route packets for `networks` to the interface `index` by `table`. Raises `AdapterError`."""
    with pyroute2().IPRoute() as ipr:
        for network in networks:
            _add_route(ipr, index, network, table)


def _add_route(ipr: Any, index: int, network: Network, table: int) -> None:
    family = _FAMILIES[network.version]
    try:
        ipr.route("add", dst=str(network), oif=index, table=table, family=family, proto=_OURS)
    except pyroute2().NetlinkError as error:
        if network.version == 6 and error.code in NO_IPV6:
            log.warning(f"IPv6 is disabled here, so {network} gets no route")
            return
        if error.code == errno.EEXIST:
            raise AdapterError(
                error.code, f"a route for {network} exists already; to keep it, set Table = off"
            ) from None
        raise AdapterError(error.code, f"the route for {network} was refused: {os.strerror(error.code)}") from None


@contextmanager
def routed(index: int, networks: Sequence[Network], table: int, mark: int) -> Iterator[None]:
    """Send all packets without `mark` for `networks` to the interface `index`, by `table`, until the block ends.

    `networks` has the default route of one IP version or of both. Raises `AdapterError`.
    """
    with ExitStack() as undo:
        undo.callback(_remove_routes, index, networks, table)  # A persistent interface would keep them.
        add_routes(index, networks, table)
        versions = {network.version for network in networks}
        divert(versions, table, mark, lambda rules: undo.callback(undivert, rules))
        yield


def _remove_routes(index: int, networks: Iterable[Network], table: int) -> None:
    """Remove routes that exist: they may have vanished with the interface."""
    with pyroute2().IPRoute() as ipr:
        for network in networks:
            family = _FAMILIES[network.version]
            try:
                ipr.route("del", dst=str(network), oif=index, table=table, family=family, proto=_OURS)
            except pyroute2().NetlinkError as error:
                log.debug("route for %s: %s", network, error)


def divert(versions: Collection[int], table: int, mark: int, before: Callable[[list[Rule]], object]) -> None:
    """Send all packets of these IP versions without `mark` to `table`, which has routes already.

    Sets src_valid_mark for IPv4, without which the reverse path filter drops the answers to marked packets. `before` is
    called before anything is changed, with the rules to be given to `undivert`. Raises `AdapterError`.
    """
    with pyroute2().IPRoute() as ipr, opening():  # No other device may reset src_valid_mark meanwhile.
        protocols = dict.fromkeys(versions, _OURS)
        marked = _marked()
        if 4 in protocols and (marked is False or _marking_rules(ipr)):
            protocols[4] = _OURS_AND_MARK
        rules = [
            rule for version in sorted(protocols) for rule in _rules(ipr, version, table, mark, protocols[version])
        ]
        before(rules)
        if 4 in protocols and marked is False:
            _set_marked("1")
        for rule in rules:
            try:
                ipr.rule("add", **rule)
            except pyroute2().NetlinkError as error:
                raise AdapterError(error.code, f"a routing rule was refused: {os.strerror(error.code)}") from None


def undivert(rules: Iterable[Rule]) -> None:
    """Undo `divert`: remove the rules that exist, and reset src_valid_mark if no other device needs it.

    Raises `AdapterError` after removing all that it can.
    """
    with pyroute2().IPRoute() as ipr, opening():
        _remove_rules(ipr, rules)


def _remove_rules(ipr: Any, rules: Iterable[Rule]) -> None:
    failed: Any = None
    marked = False
    for rule in rules:
        marked |= rule["protocol"] == _OURS_AND_MARK
        try:
            ipr.rule("del", **rule)
        except pyroute2().NetlinkError as error:
            if error.code not in _MISSING:
                failed = error
    if marked and not _needed(ipr):
        _set_marked("0")
    if failed is not None:
        raise AdapterError(failed.code, f"a routing rule cannot be removed: {os.strerror(failed.code)}")


def _left_rules(ipr: Any) -> list[Rule]:
    """Return the rules of ours that lead to a table without routes, and those that accompany them.

    A running process adds its routes before its rules, so such a table lost them with the interface of a dead one.
    """
    left: list[Rule] = []
    for family in _FAMILIES.values():
        tables = {route.get("table") for route in ipr.get_routes(family=family)}
        for rule in ipr.get_rules(family=family):
            table, mark, priority, protocol = map(rule.get, ("table", "fwmark", "priority", "protocol"))
            if protocol in (_OURS, _OURS_AND_MARK) and mark is not None and table not in tables:
                left += _rule_pair(family, table, mark, priority, protocol)
    return left


def _rules(ipr: Any, version: int, table: int, mark: int, protocol: int) -> list[Rule]:
    """Return two rules, which precede all others except that for local addresses; the second precedes the first."""
    family = _FAMILIES[version]
    first = min(rule.get("priority") or 0xFFFF for rule in ipr.get_rules(family=family))
    return _rule_pair(family, table, mark, first - 1, protocol)


def _rule_pair(family: int, table: int, mark: int, priority: int, protocol: int) -> list[Rule]:
    common = {"family": int(family), "protocol": protocol}
    return [
        {"table": table, "fwmark": mark, "flags": _FIB_RULE_INVERT, "priority": priority, **common},
        {"table": _TABLE_MAIN, "suppress_prefixlen": 0, "priority": priority - 1, **common},
    ]


def _marked() -> bool | None:
    """Return True if src_valid_mark is set, or None if this system does not tell."""
    try:
        return _VALID_MARK.read_text().strip() != "0"
    except OSError as error:
        log.warning(f"{_VALID_MARK}: {error.strerror}; if rp_filter is strict, answers may be dropped")
        return None


def _set_marked(value: str) -> None:
    try:
        _VALID_MARK.write_text(value)
    except OSError as error:
        log.warning(f"{_VALID_MARK}: {error.strerror}; if rp_filter is strict, answers may be dropped")


def _marking_rules(ipr: Any) -> list[Any]:
    """Return the rules, one for each device, which tell that a device of ours has set src_valid_mark."""
    rules = [rule for rule in ipr.get_rules(family=socket.AF_INET) if rule.get("protocol") == _OURS_AND_MARK]
    return [rule for rule in rules if rule.get("fwmark") is not None]


def _needed(ipr: Any) -> bool:
    """Return True if a device needs src_valid_mark.

    The rules of such a device lead to a table with routes, unlike those of a killed process.
    """
    tables = {route.get("table") for route in ipr.get_routes(family=socket.AF_INET)}
    return any(rule.get("table") in tables for rule in _marking_rules(ipr))
