"""Who looks names up while a device is up: told by resolvconf, of any make, or by systemd's resolvectl."""

import ipaddress
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from threepipe.errors import InvalidSetting
from threepipe.wireguard.quick.commands import execute

__all__ = ["dns", "is_address", "resolvconf_record"]

ORDER = Path("/etc/resolvconf/interface-order")
"""Of Debian's resolvconf alone: which records come first, by patterns of their names."""

log = logging.getLogger("threepipe")


@contextmanager
def dns(name: str, entries: Sequence[str]) -> Iterator[None]:
    """While it lasts, have names be looked up at the addresses among `entries`; the others are domains to search.

    `name` is the interface. Raises `InvalidSetting` where nobody here can be told.
    """
    if not entries:
        yield
        return
    servers = [entry for entry in entries if is_address(entry)]
    domains = [entry for entry in entries if not is_address(entry)]
    if shutil.which("resolvconf"):
        record = resolvconf_record(name)
        lines = [f"nameserver {server}\n" for server in servers] + [f"search {' '.join(domains)}\n"] * bool(domains)
        execute(["resolvconf", "-a", record, "-m", "0", "-x"], "".join(lines))
        undo = ["resolvconf", "-d", record, "-f"]
    elif shutil.which("resolvectl"):
        undo = ["resolvectl", "revert", name]
        execute(["resolvectl", "dns", name, *servers])
        execute(["resolvectl", "domain", name, *domains, "~."])  # If this fails, the first one goes with the interface.
    else:
        raise InvalidSetting("DNS takes resolvconf or resolvectl, and there is neither; install one, or leave DNS out")
    try:
        yield
    finally:
        try:
            execute(undo)
        except InvalidSetting as error:
            log.warning(str(error))


def resolvconf_record(name: str, order: Path = ORDER) -> str:
    """What resolvconf is to call what it is told about the interface `name`.

    Debian's own ranks records by the beginnings of their names, and is given the first of those that it knows. Others
    take the name for an interface, as which resolvectl, where it goes by the name of resolvconf, looks it up.
    """
    try:
        patterns = order.read_text().splitlines()
    except OSError:
        return name
    prefix = next((found[1] for pattern in patterns if (found := re.fullmatch(r"([A-Za-z0-9-]+)\*", pattern))), None)
    return f"{prefix}.{name}" if prefix else name


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
