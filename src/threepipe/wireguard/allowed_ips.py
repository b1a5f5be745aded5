"""Allowed IPs: which peer an address belongs to, by the longest prefix (paper, section 2: cryptokey routing).

Both families. Knows of peers only that they are distinct things.
"""

from typing import Generic, TypeVar

from threepipe.settings import Network

__all__ = ["AllowedIPs"]

Owner = TypeVar("Owner")

_MOST_KNOWN = 1 << 16


class AllowedIPs(Generic[Owner]):
    """A prefix belongs to one owner at a time: to whom it was given last."""

    def __init__(self) -> None:
        # Of each family, by its addresses' size in bytes: prefix length -> prefix -> owner, the longest first.
        self._tables: dict[int, dict[int, dict[int, Owner]]] = {4: {}, 16: {}}
        self._networks: dict[Owner, dict[Network, None]] = {}
        self._known: dict[bytes, Owner | None] = {}  # What was found for addresses since the last change.

    def insert(self, network: Network, owner: Owner) -> None:
        """Give `network` to `owner`, whoever had it."""
        size = network.max_prefixlen // 8
        table = self._tables[size]
        if network.prefixlen not in table:
            self._tables[size] = table = dict(sorted({**table, network.prefixlen: {}}.items(), reverse=True))
        prefixes = table[network.prefixlen]
        prefix = _prefix(int(network.network_address), size, network.prefixlen)
        if (before := prefixes.get(prefix)) is not None:
            del self._networks[before][network]
        prefixes[prefix] = owner
        self._networks.setdefault(owner, {})[network] = None
        self._known.clear()

    def remove(self, network: Network, owner: Owner) -> None:
        """Take `network` from `owner`, if it is his."""
        if network not in self._networks.get(owner, {}):
            return
        del self._networks[owner][network]
        size = network.max_prefixlen // 8
        prefixes = self._tables[size][network.prefixlen]
        del prefixes[_prefix(int(network.network_address), size, network.prefixlen)]
        if not prefixes:
            del self._tables[size][network.prefixlen]
        self._known.clear()

    def remove_all(self, owner: Owner) -> None:
        """Take all from `owner`."""
        for network in self.of(owner):
            self.remove(network, owner)
        self._networks.pop(owner, None)

    def of(self, owner: Owner) -> tuple[Network, ...]:
        """What belongs to `owner`, in the order it was given."""
        return tuple(self._networks.get(owner, ()))

    def find(self, address: bytes) -> Owner | None:
        """Whom `address`, of 4 or 16 bytes, belongs to."""
        try:
            return self._known[address]
        except KeyError:
            owner = self._look_up(address)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[address] = owner
            return owner

    def _look_up(self, address: bytes) -> Owner | None:
        number, size = int.from_bytes(address, "big"), len(address)
        for length, prefixes in self._tables.get(size, {}).items():
            if (owner := prefixes.get(_prefix(number, size, length))) is not None:
                return owner
        return None


def _prefix(address: int, size: int, length: int) -> int:
    return address >> (size * 8 - length)
