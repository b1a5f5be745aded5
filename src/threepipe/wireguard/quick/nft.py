"""Packet filter rules for a device that is the default route, set by nft. Knows no routes and no devices.

As wg-quick(8): hosts on the same links must not reach this machine's addresses in the tunnel, nor learn by answers that
it has them. And the answers to the device's datagrams get the datagrams' mark, so that a strict reverse path filter
looks up the route of the datagrams.
"""

import logging
import re
import shutil
from collections.abc import Callable, Iterable

from threepipe.errors import InvalidSetting
from threepipe.settings import Address
from threepipe.wireguard.quick.commands import Hold, execute, hold_nothing

__all__ = ["protect_addresses", "remove_table"]

log = logging.getLogger("threepipe")


def protect_addresses(
    name: str,
    index: int,
    addresses: Iterable[Address],
    mark: int,
    before: Callable[..., object],
    hold: Hold = hold_nothing,
) -> None:
    """Drop packets for `addresses` that arrive at another interface than `index`.

    `mark` is that of the device's datagrams. `before` is called first, with the kind `nft` and the arguments of
    `remove_table`. If nft is missing or fails, a warning is logged and there are no rules.
    """
    if not (nft := shutil.which("nft")):
        log.warning("nft is not installed, so hosts on the same links can reach the addresses in the tunnel")
        return
    # A slash is for nft a letter, and cannot be in the name of an interface, so that no two have the same table.
    table = "threepipe-" + re.sub("[^A-Za-z0-9_-]", lambda found: f"/{ord(found[0]):x}", name)
    foreign = f"iif != {index} {{}} daddr {{}} fib saddr type != local drop"
    drops = [foreign.format("ip" if address.version == 4 else "ip6", address.ip) for address in addresses]
    lines = [
        *_without(table),
        f"table inet {table} {{",
        "chain guard { type filter hook prerouting priority -300;",
        *drops,
        "}",
        f"chain keep {{ type filter hook postrouting priority -150; meta l4proto udp mark {mark} ct mark set mark; }}",
        "chain find { type filter hook prerouting priority -150; meta l4proto udp meta mark set ct mark; }",
        "}",
    ]
    before("nft", table=table)
    try:
        execute([nft, "-f", "-"], "\n".join(lines) + "\n", hold)
    except InvalidSetting as error:
        log.warning(f"{error}; hosts on the same links can reach the addresses in the tunnel")


def remove_table(hold: Hold, table: str) -> None:
    """Remove a table of ours, if it exists. Raises `InvalidSetting` and `OSError`."""
    execute(["nft", "-f", "-"], "\n".join(_without(table)) + "\n", hold)


def _without(table: str) -> list[str]:
    """Return lines after which a table does not exist: before nft 1.0.6 "delete" fails unless it does."""
    return [f"add table inet {table}", f"delete table inet {table}"]
