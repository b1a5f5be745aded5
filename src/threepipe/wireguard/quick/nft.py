"""Packet filter rules for a device that everything goes through: nft is told them. Knows no routes and no devices.

Others on the same link as this machine are not to reach the addresses in the tunnel, nor learn by answers that they
are here; so wg-quick(8) has it as well. And what comes back to the device's datagrams gets their mark, so that a
strict reverse path filter looks for its source where they went.
"""

import logging
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from threepipe.errors import InvalidSetting
from threepipe.settings import Address
from threepipe.wireguard.quick.commands import execute

__all__ = ["guarded"]

log = logging.getLogger("threepipe")


@contextmanager
def guarded(name: str, index: int, addresses: Iterable[Address], mark: int) -> Iterator[None]:
    """While it lasts, packets for `addresses` come in by the interface `index` alone, or from this machine.

    `mark` is that of the device's datagrams. Where nft is not there or cannot, it is told, and there are no rules.
    """
    if not (nft := shutil.which("nft")):
        log.warning("there is no nft, so others on the same link can reach the addresses in the tunnel")
        yield
        return
    table = f"inet threepipe-{re.sub('[^A-Za-z0-9_-]', '.', name)}"
    strangers = f"iif != {index} {{}} daddr {{}} fib saddr type != local drop"
    drops = [strangers.format("ip" if address.version == 4 else "ip6", address.ip) for address in addresses]
    lines = [
        # One that was killed has left it.
        f"add table {table}",
        f"delete table {table}",
        f"table {table} {{",
        "chain guard { type filter hook prerouting priority -300;",
        *drops,
        "}",
        f"chain keep {{ type filter hook postrouting priority -150; meta l4proto udp mark {mark} ct mark set mark; }}",
        "chain find { type filter hook prerouting priority -150; meta l4proto udp meta mark set ct mark; }",
        "}",
    ]
    try:
        execute([nft, "-f", "-"], "\n".join(lines) + "\n")
    except InvalidSetting as error:
        log.warning(f"{error}; others on the same link can reach the addresses in the tunnel")
        yield
        return
    try:
        yield
    finally:
        try:
            execute([nft, "delete", "table", *table.split()])
        except InvalidSetting as error:
            log.warning(str(error))
