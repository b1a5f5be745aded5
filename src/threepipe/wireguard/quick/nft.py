"""Packet filter rules for a device that is the default route, set by nft. Knows no routes and no devices.

As wg-quick(8): hosts on the same links must not reach this machine's addresses in the tunnel, nor learn by answers that
it has them. And the answers to the device's datagrams get the datagrams' mark, so that a strict reverse path filter
looks up the route of the datagrams.
"""

import logging
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from threepipe.errors import InvalidSetting
from threepipe.settings import Address
from threepipe.wireguard.quick.commands import execute

__all__ = ["protect_addresses"]

log = logging.getLogger("threepipe")


@contextmanager
def protect_addresses(name: str, index: int, addresses: Iterable[Address], mark: int) -> Iterator[None]:
    """Drop packets for `addresses` that arrive at another interface than `index`, while the block runs.

    `mark` is that of the device's datagrams. If nft is missing or fails, a warning is logged and there are no rules.
    """
    if not (nft := shutil.which("nft")):
        log.warning("nft is not installed, so hosts on the same links can reach the addresses in the tunnel")
        yield
        return
    table = f"inet threepipe-{re.sub('[^A-Za-z0-9_-]', '.', name)}"
    foreign = f"iif != {index} {{}} daddr {{}} fib saddr type != local drop"
    drops = [foreign.format("ip" if address.version == 4 else "ip6", address.ip) for address in addresses]
    lines = [
        # The table may be left from a process that was killed; delete fails unless it exists.
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
        log.warning(f"{error}; hosts on the same links can reach the addresses in the tunnel")
        yield
        return
    try:
        yield
    finally:
        try:
            execute([nft, "delete", "table", *table.split()])
        except InvalidSetting as error:
            log.warning(str(error))
