"""The Windows platform on the contract library, which takes the place of Wintun and of the system's interfaces.

Owns the IP Helper made of it and the wires of its adapters; `contract_dll` has the library and its controls.
Works on Linux with eventfds, and on Windows with its own events.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import threepipe
from tests.support.contract_dll.build import build, compiler
from tests.support.contract_dll.library import Contract, Fault, Interface
from threepipe.errors import AdapterGone
from threepipe.platforms.windows import structures as win
from threepipe.platforms.windows.device import System, create_on, open_on
from threepipe.platforms.windows.iphelper import IpHelper
from threepipe.platforms.windows.library import load_library, use_library
from threepipe.platforms.windows.values import IpAddress, socket_address, wide
from threepipe.platforms.windows.waiting import Events
from threepipe.platforms.windows.winerror import ERROR_FILE_NOT_FOUND, windows_error
from threepipe.platforms.windows.wintun import Wintun
from threepipe.settings import AdapterSettings

__all__ = ["Bench", "ContractIpHelper", "ContractWire", "find_contract"]

WRONG = ("use_after_end", "end_inside_call", "use_after_close", "wrong_release", "wrong_send", "oversized_packet")
LEFT = ("unreleased_at_end", "unsent_at_end")


def find_contract(config: pytest.Config) -> Path:
    """Return the contract library that THREEPIPE_CONTRACT names, or build it; skip the test if neither is possible."""
    if named := os.environ.get("THREEPIPE_CONTRACT"):
        return Path(named)
    if sys.platform != "linux" or not compiler("linux"):
        pytest.skip("there is no gcc to build the contract library with, and THREEPIPE_CONTRACT names none")
    return build("linux", config.cache.mkdir("contract"))


class Bench:
    """A loaded contract library with everything that adapters on it need."""

    def __init__(self, path: Path) -> None:
        use_library(path)
        try:
            self.wintun = Wintun(load_library(path))
        finally:
            use_library(None)
        self.contract = Contract(path)
        self.events = _events()
        self.system = System(self.wintun, ContractIpHelper(self.contract), self.events)

    def close(self) -> None:
        """Unset our logger. The library stays loaded, and would call a function that is gone."""
        self.wintun.silence()

    def create(self, name: str, **settings: Any) -> threepipe.Adapter:
        """Call `Adapter.create` on this library."""
        return threepipe.Adapter(create_on(lambda: self.system, AdapterSettings(name, **settings).checked()))

    def open(self, name: str) -> threepipe.Adapter:
        """Call `Adapter.open` on this library."""
        return threepipe.Adapter(open_on(lambda: self.system, name, None, 1))

    def names(self) -> list[str]:
        """Return the names of all interfaces."""
        return sorted(found.name for found in self.contract.interfaces())

    def wrongs(self) -> dict[str, int]:
        """Return the violations of Wintun's contract, by name; empty if it is kept."""
        return {name: count for name, count in self.contract.counters().items() if name in WRONG + LEFT}

    @contextmanager
    def wired(self, name: str = "tp0") -> Iterator[tuple[threepipe.Adapter, "ContractWire"]]:
        """Return a fresh adapter and its wire."""
        with self.create(name) as adapter:
            wire = ContractWire(self, adapter.name)
            try:
                yield adapter, wire
            finally:
                adapter.close()
                wire.close()


class ContractWire:
    """The network side of an adapter, with a handle of its own."""

    persistent = False

    def __init__(self, bench: Bench, name: str) -> None:
        self._bench = bench
        self._contract = bench.contract
        self._name = name
        self.handle = bench.wintun.open_adapter(name)

    def send(self, packets: Sequence[bytes]) -> int:
        for packet in packets:
            self._contract.inject(self.handle, packet)
        return len(packets)  # The driver also takes packets without room, and drops them.

    def receive(self, timeout: float) -> list[bytes]:
        packets: list[bytes] = []
        while packet := self._contract.take(self.handle, 0 if packets else round(timeout * 1000)):
            packets.append(packet)
        return packets

    def adapter_exists(self) -> bool:
        return self._name in self._bench.names()

    def fault(self, fault: Fault, value: int = 0) -> None:
        assert self._contract.ContractSetFault(self.handle, fault, value)

    def settle(self) -> None:
        """Wait until the driver has taken all sent packets."""
        assert self._contract.ContractSettle(self.handle, 10_000)

    def discarded(self) -> int:
        """Return how many invalid packets of the program the driver has dropped."""
        self.settle()
        return self._contract.statistics(self.handle).get("sent_discarded", 0)

    def close(self) -> None:
        self._bench.wintun.close_adapter(self.handle)


class ContractIpHelper(IpHelper):
    """An IP Helper that shows the interfaces of the contract library, and keeps and shows their settings."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._families: dict[tuple[int, int], bytes] = {}
        self.dns: dict[int, tuple[str, str]] = {}
        """The last servers and search domains set, by family."""
        self._addresses: dict[tuple[int, IpAddress], win.MIB_UNICASTIPADDRESS_ROW] = {}
        self._routes: dict[tuple[int, IpAddress, int], win.MIB_IPFORWARD_ROW2] = {}
        self.new_names: dict[str, str] = {}
        """The names that an administrator gave interfaces, by their old ones."""

    def index_of(self, luid: int) -> int:
        self._find(luid)
        return luid >> 24 & 0xFFFFFF

    def alias_of(self, luid: int) -> str:
        name = str(self._find(luid).name)
        return self.new_names.get(name, name)

    def luid_of(self, alias: str) -> int | None:
        found = {interface.name.casefold(): int(interface.luid) for interface in self._contract.interfaces()}
        return found.get(alias.casefold())

    def link(self, luid: int) -> win.MIB_IF_ROW2:
        interface = self._find(luid)
        row = win.MIB_IF_ROW2(InterfaceIndex=self.index_of(luid), Mtu=65535)
        row.InterfaceLuid.Value = luid
        for position, unit in enumerate(wide(self.alias_of(luid))):
            row.Alias[position] = unit
        row.OperStatus = win.IfOperStatusUp if interface.connected else win.IfOperStatusUp + 1
        adapter = self._contract.WintunOpenAdapter(interface.name)
        counts = self._contract.statistics(adapter)
        self._contract.WintunCloseAdapter(adapter)
        row.OutUcastPkts, row.OutOctets = counts.get("received_packets", 0), counts.get("received_bytes", 0)
        row.InUcastPkts, row.InOctets = counts.get("sent_packets", 0), counts.get("sent_bytes", 0)
        row.OutDiscards, row.InDiscards = counts.get("received_dropped", 0), counts.get("sent_discarded", 0)
        return row

    def interface(self, luid: int, family: int) -> win.MIB_IPINTERFACE_ROW:
        self._find(luid)
        if (luid, family) in self._families:
            return win.MIB_IPINTERFACE_ROW.from_buffer_copy(self._families[luid, family])
        row = win.MIB_IPINTERFACE_ROW(Family=family, NlMtu=65535)
        row.InterfaceLuid.Value = luid
        return row

    def set_interface(self, row: win.MIB_IPINTERFACE_ROW) -> None:
        self._find(row.InterfaceLuid.Value)
        self._families[row.InterfaceLuid.Value, row.Family] = bytes(row)

    def addresses(self) -> list[win.MIB_UNICASTIPADDRESS_ROW]:
        return list(self._addresses.values())

    def check_dns(self) -> None:
        """Accept DNS: this fake supports it."""

    def set_dns(self, luid: int, family: int, servers: str, domains: str) -> None:
        self._find(luid)
        self.dns[family] = servers, domains

    def routes(self) -> list[win.MIB_IPFORWARD_ROW2]:
        return list(self._routes.values())

    def add_route(self, luid: int, network: IpAddress, prefix_length: int) -> None:
        row = win.MIB_IPFORWARD_ROW2()
        row.InterfaceLuid.Value = luid
        row.DestinationPrefix.Prefix, row.DestinationPrefix.PrefixLength = socket_address(network), prefix_length
        self._routes[luid, network, prefix_length] = row

    def delete_route(self, luid: int, network: IpAddress, prefix_length: int) -> None:
        del self._routes[luid, network, prefix_length]

    def add_address(self, luid: int, address: IpAddress, prefix_length: int) -> None:
        row = win.MIB_UNICASTIPADDRESS_ROW(Address=socket_address(address), OnLinkPrefixLength=prefix_length)
        row.InterfaceLuid.Value = luid
        self._addresses[luid, address] = row

    def delete_address(self, luid: int, address: IpAddress) -> None:
        del self._addresses[luid, address]

    def _find(self, luid: int) -> Interface:
        for interface in self._contract.interfaces():
            if interface.luid == luid:
                return interface
        raise windows_error(AdapterGone, ERROR_FILE_NOT_FOUND, "the adapter was removed")


def _events() -> Events:
    if sys.platform == "win32":
        from threepipe.platforms.windows import events

        return events.system()
    elif sys.platform == "linux":
        from tests.support.contract_events import EventFds

        return EventFds()
    else:
        raise NotImplementedError(f"there is no contract library for {sys.platform}")
