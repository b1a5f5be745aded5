"""Adapters on a model of a kernel, and their wires."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.bsd.kernel import Kernel
from threepipe.adapter import Adapter
from threepipe.platforms.bsd.device import Place, adapters_on, create_on, open_on
from threepipe.platforms.bsd.driver import Driver
from threepipe.settings import AdapterSettings, parse_addresses, parse_routes

__all__ = ["Bench", "KernelWire"]


class Bench:
    """A kernel and the platform's driver for it."""

    def __init__(self, kernel: Kernel, driver: Driver, folder: Path | None = None) -> None:
        self.kernel = kernel
        self.place = Place(kernel, driver, folder)
        self.template = f"{driver.kind.driver}%d"

    def create(
        self, name: str | None = None, *, addresses: Sequence[str] = (), routes: Sequence[str] = (), **settings: Any
    ) -> Adapter:
        """Call `Adapter.create` on this kernel."""
        parsed = AdapterSettings(
            name or self.template, parse_addresses(addresses), parse_routes(routes), **settings
        ).checked()
        return Adapter(create_on(self.place, parsed))

    def open(self, name: str) -> Adapter:
        """Call `Adapter.open` on this kernel."""
        return Adapter(open_on(self.place, name, None, True, 1))

    def names(self) -> list[str]:
        """Return the names of the adapters, as `adapters` does."""
        return [info.name for info in adapters_on(self.place, None)]

    @contextmanager
    def wired(self) -> Iterator[tuple[Adapter, "KernelWire"]]:
        """Make an adapter with an address, and its wire; a `Make` of `threepipe.testing`."""
        with self.create(addresses=["10.9.8.1/24", "fd09::1/64"]) as adapter:
            yield adapter, KernelWire(self.kernel, adapter.name)


class KernelWire:
    """The network side of an adapter on a model."""

    persistent = False

    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel = kernel
        self._name = name

    def send(self, packets: Sequence[bytes]) -> int:
        return self._kernel.deliver(self._name, packets)

    def receive(self, timeout: float) -> list[bytes]:
        return self._kernel.arrivals(self._name, timeout)

    def adapter_exists(self) -> bool:
        return self._name in self._kernel.interfaces
