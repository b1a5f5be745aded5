"""KernelRoutes: the routes of the system for an adapter, which a routing daemon, an administrator or a program sets."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import IPv6Address, IPv6Interface
from types import TracebackType
from typing import Self

from threepipe import platforms
from threepipe.adapter import Adapter, is_given
from threepipe.errors import AdapterClosed, AdapterError
from threepipe.settings import NamespaceName, Network

__all__ = ["KernelRoutes"]

_LINK_LOCAL_LENGTH = 64
_METRIC = 4096  # That of babeld and of the kernel is 1024, of FRR 20, of BIRD 32.


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

    def add(self, destination: Network, next_hop: IPv6Address) -> None:
        """Route a network, also one of IPv4, to a peer by its link-local address, in the table `main`.

        The metric is 4096, so that the routes of babeld, BIRD and FRR win. The route goes with the adapter. Raises
        `AdapterError`. Not thread-safe.
        """
        self._change(self._next_hops.add, destination, next_hop)

    def remove(self, destination: Network, next_hop: IPv6Address) -> None:
        """Undo `add`; do nothing if the route is gone. Raises `AdapterError`. Not thread-safe."""
        self._change(self._next_hops.remove, destination, next_hop)

    def _change(
        self, change: Callable[[Network, bytes, int], None], destination: Network, next_hop: IPv6Address
    ) -> None:
        try:
            change(destination, next_hop.packed, _METRIC)
        except OSError as error:
            text = f"the route for {destination} was refused: {error.strerror}"
            raise AdapterError(error.errno, text) from None

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
        """Free everything, and take the link-local address from an adapter that is still there, and this process's."""
        self._next_hops.close()
        address, self._address = self._address, None
        if address is not None and not is_given(self._adapter):
            with suppress(AdapterClosed, AdapterError):
                self._adapter.remove_address(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
