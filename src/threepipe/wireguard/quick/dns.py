"""DNS settings while a device is up, set by any implementation of resolvconf, or by systemd's resolvectl."""

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
"""The order of records in Debian's resolvconf, as patterns of their names. Others do not have this file."""

log = logging.getLogger("threepipe")


@contextmanager
def dns(name: str, entries: Sequence[str]) -> Iterator[None]:
    """Use the addresses in `entries` as name servers of the interface `name`, and the others as search domains.

    This lasts while the block runs. Raises `InvalidSetting` if neither tool is installed, or if it fails.
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
        execute(["resolvectl", "domain", name, *domains, "~."])  # If this fails, the servers go with the interface.
    else:
        raise InvalidSetting("DNS needs resolvconf or resolvectl; install one, or remove DNS from the file")
    try:
        yield
    finally:
        try:
            execute(undo)
        except InvalidSetting as error:
            log.warning(str(error))


def resolvconf_record(name: str, order: Path = ORDER) -> str:
    """Return the name of the record that resolvconf is to have for the interface `name`.

    Debian's resolvconf ranks records by the prefixes of their names, so the record gets the first prefix that it knows.
    Others take the name of the record for that of an interface; resolvectl looks it up when called as resolvconf.
    """
    try:
        patterns = order.read_text().splitlines()
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
