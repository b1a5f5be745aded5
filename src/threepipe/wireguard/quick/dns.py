"""DNS settings while a device is up, set by a program of the system: `platforms` names those that it may have.

Known are any implementation of resolvconf, systemd's resolvectl, macOS' scutil, and OpenBSD's route for resolvd.
"""

import ipaddress
import logging
import re
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from threepipe import platforms
from threepipe.errors import InvalidSetting
from threepipe.wireguard.quick.commands import Hold, execute, hold_nothing

__all__ = [
    "is_address",
    "remove_key",
    "remove_proposal",
    "remove_record",
    "resolvconf_record",
    "revert",
    "set_dns",
]

log = logging.getLogger("threepipe")

ORDER = Path("/etc/resolvconf/interface-order")
"""The order of records in Debian's resolvconf, as patterns of their names. Others do not have this file."""


Before = Callable[..., object]
"""Called with the kind of a deed that undoes the next one, and its arguments."""


def set_dns(name: str, index: int, entries: Sequence[str], before: Before, hold: Hold = hold_nothing) -> None:
    """Use the addresses in `entries` as name servers of the interface `name`, and the others as search domains.

    `before` is called first, with a kind and arguments: `dns` and those of `remove_record`, `resolved` and those of
    `revert`, `scutil` and those of `remove_key`, or `nameserver` and those of `remove_proposal`. Raises
    `InvalidSetting` if no tool is installed, or if it fails.
    """
    if not entries:
        return
    servers = [entry for entry in entries if is_address(entry)]
    domains = [entry for entry in entries if not is_address(entry)]
    for tool in platforms.DNS_TOOLS:
        if shutil.which(tool):
            _TOOLS[tool](name, index, servers, domains, before, hold)
            return
    raise InvalidSetting(f"DNS needs {' or '.join(platforms.DNS_TOOLS)}; install one, or remove DNS from the file")


def _by_resolvconf(name: str, index: int, servers: list[str], domains: list[str], before: Before, hold: Hold) -> None:
    record = resolvconf_record(name)
    lines = [f"nameserver {server}\n" for server in servers] + [f"search {' '.join(domains)}\n"] * bool(domains)
    before("dns", record=record)
    execute(["resolvconf", "-a", record, "-m", "0", "-x"], "".join(lines), hold)


def _by_resolvectl(name: str, index: int, servers: list[str], domains: list[str], before: Before, hold: Hold) -> None:
    before("resolved", name=name, index=index)
    execute(["resolvectl", "dns", name, *servers], hold=hold)
    execute(["resolvectl", "domain", name, *domains, "~."], hold=hold)


def _by_scutil(name: str, index: int, servers: list[str], domains: list[str], before: Before, hold: Hold) -> None:
    """Set a key of the state of macOS, which is lost when the system starts, unlike those of networksetup.

    The empty domain matches all names.
    """
    key = f"State:/Network/Service/threepipe-{name}/DNS"
    lines = ["d.init"]
    if servers:
        lines += [f"d.add ServerAddresses * {' '.join(servers)}"]
        lines += [" ".join(['d.add SupplementalMatchDomains * ""', *domains])]
    if domains:
        lines += [f"d.add SearchDomains * {' '.join(domains)}"]
    before("scutil", key=key)
    execute(["scutil"], "".join(f"{line}\n" for line in [*lines, f"set {key}"]), hold)


def _by_route(name: str, index: int, servers: list[str], domains: list[str], before: Before, hold: Hold) -> None:
    """Propose name servers to OpenBSD's resolvd, which forgets them when the interface goes."""
    if domains:
        log.warning(f"search domains cannot be set here, so {name} does without {', '.join(domains)}")
    if servers:
        before("nameserver", name=name, index=index)
        execute(["route", "nameserver", name, *servers], hold=hold)


_TOOLS = {
    "resolvconf": _by_resolvconf,
    "resolvectl": _by_resolvectl,
    "scutil": _by_scutil,
    "route": _by_route,
}


def remove_record(hold: Hold, record: str) -> None:
    """Remove a record of resolvconf, if it exists. Raises `InvalidSetting` and `OSError`."""
    execute(["resolvconf", "-d", record, "-f"], hold=hold)


def revert(hold: Hold, name: str, index: int) -> None:
    """Undo the settings of an interface, unless they went with it. Raises `InvalidSetting` and `OSError`."""
    if (index, name) in socket.if_nameindex():
        execute(["resolvectl", "revert", name], hold=hold)


def remove_key(hold: Hold, key: str) -> None:
    """Remove a key of the state of macOS, if it exists. Raises `InvalidSetting` and `OSError`."""
    execute(["scutil"], f"remove {key}\n", hold)


def remove_proposal(hold: Hold, name: str, index: int) -> None:
    """Take back the name servers of an interface, unless they went with it. Raises `InvalidSetting` and `OSError`."""
    if (index, name) in socket.if_nameindex():
        execute(["route", "nameserver", name], hold=hold)


def resolvconf_record(name: str, order: Path = ORDER) -> str:
    """Return the name of the record that resolvconf is to have for the interface `name`.

    Debian's resolvconf ranks records by the prefixes of their names, so the record gets the first prefix that it knows.
    Others take the name of the record for that of an interface; resolvectl looks it up when called as resolvconf.
    """
    try:
        patterns = order.read_bytes().decode(errors="replace").split("\n")
    except OSError:
        return name
    prefix = next((found[1] for pattern in patterns if (found := re.fullmatch(r"([A-Za-z0-9-]+)\*", pattern))), None)
    return f"{prefix}.{name}" if prefix else name


def is_address(text: str) -> bool:
    """Return True if `text` is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
