"""DNS settings while a device is up, set by any implementation of resolvconf, or by systemd's resolvectl."""

import ipaddress
import re
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from threepipe.errors import InvalidSetting
from threepipe.wireguard.quick.commands import Hold, execute, hold_nothing

__all__ = ["is_address", "remove_record", "resolvconf_record", "revert", "set_dns"]

ORDER = Path("/etc/resolvconf/interface-order")
"""The order of records in Debian's resolvconf, as patterns of their names. Others do not have this file."""


def set_dns(
    name: str, index: int, entries: Sequence[str], before: Callable[..., object], hold: Hold = hold_nothing
) -> None:
    """Use the addresses in `entries` as name servers of the interface `name`, and the others as search domains.

    `before` is called first, with a kind and arguments: `dns` and those of `remove_record`, or `resolved` and those of
    `revert`. Raises `InvalidSetting` if neither tool is installed, or if it fails.
    """
    if not entries:
        return
    servers = [entry for entry in entries if is_address(entry)]
    domains = [entry for entry in entries if not is_address(entry)]
    if shutil.which("resolvconf"):
        record = resolvconf_record(name)
        lines = [f"nameserver {server}\n" for server in servers] + [f"search {' '.join(domains)}\n"] * bool(domains)
        before("dns", record=record)
        execute(["resolvconf", "-a", record, "-m", "0", "-x"], "".join(lines), hold)
    elif shutil.which("resolvectl"):
        before("resolved", name=name, index=index)
        execute(["resolvectl", "dns", name, *servers], hold=hold)
        execute(["resolvectl", "domain", name, *domains, "~."], hold=hold)
    else:
        raise InvalidSetting("DNS needs resolvconf or resolvectl; install one, or remove DNS from the file")


def remove_record(hold: Hold, record: str) -> None:
    """Remove a record of resolvconf, if it exists. Raises `InvalidSetting` and `OSError`."""
    execute(["resolvconf", "-d", record, "-f"], hold=hold)


def revert(hold: Hold, name: str, index: int) -> None:
    """Undo the settings of an interface, unless they went with it. Raises `InvalidSetting` and `OSError`."""
    if (index, name) in socket.if_nameindex():
        execute(["resolvectl", "revert", name], hold=hold)


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
