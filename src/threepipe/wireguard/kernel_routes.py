"""KernelRoutes: the routes of the system for an adapter, which a routing daemon or an administrator sets."""

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv6Address, IPv6Interface
from types import TracebackType
from typing import Self

from threepipe import platforms
from threepipe.adapter import Adapter
from threepipe.errors import AdapterClosed, AdapterError
from threepipe.settings import NamespaceName, Network

__all__ = ["KernelRoutes"]

_LINK_LOCAL_LENGTH = 64


class KernelRoutes:
    """The routes of the system that lead to `adapter`, for `NextHopRouting`. Linux alone.

    The device that has it closes it, and gives the adapter the link-local address of its key.
    """

    def __init__(self, adapter: Adapter, netns: NamespaceName | None = None) -> None:
        """Ask in the network namespace of `adapter`, given as to `Adapter.create`.

        From now on the system makes no link-local address of its own for the adapter. Raises `AdapterError`, and
        `AdapterUnavailable` on systems other than Linux.
        """
        self._adapter = adapter
        self._next_hops = platforms.open_next_hops(adapter.index, adapter.name, netns)
        self._address: IPv6Interface | None = None

    def next_hop(self, destination: bytes, source: bytes) -> bytes | None:
        """Return the 16 bytes of the next hop, as the system's routes and rules have it now. Raises `OSError`."""
        return self._next_hops.find(destination, source)

    def changes(self) -> Sequence[Network] | None:
        """Wait until routes, rules, addresses or interfaces have changed. Raises `OSError`."""
        return self._next_hops.changes()

    def use_address(self, address: IPv6Address | None) -> None:
        """Give the adapter this link-local address (with /64) in place of others. Raises as `Adapter.add_address`."""
        wanted = None if address is None else IPv6Interface((address, _LINK_LOCAL_LENGTH))
        present = [each for each in self._adapter.addresses if each.version == 6 and each.is_link_local]
        if wanted is not None and wanted not in present:
            self._adapter.add_address(wanted)
        self._address = wanted
        for other in present:
            if other != wanted:
                self._adapter.remove_address(other)

    def close(self) -> None:
        """Free everything, and take the link-local address from an adapter that is still there."""
        self._next_hops.close()
        address, self._address = self._address, None
        if address is not None:
            with suppress(AdapterClosed, AdapterError):
                self._adapter.remove_address(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
