"""Allowed IPs: the peer of an address, by the longest prefix (cryptokey routing; paper, section 2).

For both families. A peer is any hashable object here.
"""

from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

from threepipe.core.superpacket import HEADER_SIZE
from threepipe.settings import Network

__all__ = ["BEFORE", "AllowedIPs"]

BEFORE = (0, HEADER_SIZE)
"""The bytes that a record can have before its packet."""

Owner = TypeVar("Owner")

_MAX_KNOWN = 1 << 16


class AllowedIPs(Generic[Owner]):
    """A map from prefixes to owners. A prefix belongs to the owner that inserted it last."""

    KEYS: ClassVar[Mapping[int, tuple[slice, slice]]] = {
        skipped: (slice(skipped + 16, skipped + 20), slice(skipped + 24, skipped + 40)) for skipped in BEFORE
    }
    """The bytes before a packet -> those that `find` takes, of IPv4 and of IPv6: the destination."""

    def __init__(self) -> None:
        # Size of the family's addresses in bytes -> prefix length, the longest first -> prefix -> owner.
        self._tables: dict[int, dict[int, dict[int, Owner]]] = {4: {}, 16: {}}
        self._networks: dict[Owner, dict[Network, None]] = {}
        self._known: dict[bytes, Owner | None] = {}  # Results since the last change.

    def insert(self, network: Network, owner: Owner) -> None:
        """Give `network` to `owner`, taking it from another one."""
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
        """Take `network` from `owner`; do nothing if it belongs to another one."""
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
        """Take all networks from `owner`."""
        for network in self.of(owner):
            self.remove(network, owner)
        self._networks.pop(owner, None)

    def of(self, owner: Owner) -> tuple[Network, ...]:
        """Return the networks of `owner`, in the order of their insertion."""
        return tuple(self._networks.get(owner, ()))

    def allows(self, source: bytes, owner: Owner) -> bool:
        """Return True if `owner` may send from an address of 4 or 16 bytes."""
        return self.find(source) is owner

    def find(self, address: bytes) -> Owner | None:
        """Return the owner of an address of 4 or 16 bytes."""
        try:
            return self._known[address]
        except KeyError:
            owner = self._look_up(address)
            if len(self._known) >= _MAX_KNOWN:
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
