"""The settings of an interface on Windows (MTU, addresses, routes, DNS): applying, describing and undoing them.

This module owns the record of the changes. It knows no drivers and sessions: an interface is a LUID.
"""

import ipaddress
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from threepipe.backend import AdapterInfo, AdapterStatistics
from threepipe.errors import AdapterError, IPv6Unavailable
from threepipe.platforms.windows import structures as win
from threepipe.platforms.windows.iphelper import IpHelper
from threepipe.platforms.windows.values import IpAddress, ip_of, text_of
from threepipe.platforms.windows.winerror import (
    ERROR_FILE_NOT_FOUND,
    ERROR_NOT_FOUND,
    ERROR_NOT_SUPPORTED,
    ERROR_PROC_NOT_FOUND,
    error_code,
    windows_error,
)
from threepipe.settings import MIN_IPV6_MTU, AdapterSettings, Address, Network, WindowsSettings

__all__ = ["DEFAULT_MTU", "Interface", "describe_all"]

log = logging.getLogger("threepipe")

DEFAULT_MTU = 1500
"""Bytes. Windows would take the driver's 65535, which no network behind the adapter carries."""

_SECONDS_FOR_FAMILY = 5.0
_GONE = frozenset({ERROR_FILE_NOT_FOUND, ERROR_NOT_FOUND})
_NO_DNS = _GONE | {ERROR_PROC_NOT_FOUND}
_NO_FAMILY = frozenset({ERROR_NOT_FOUND, ERROR_NOT_SUPPORTED})
_ENABLE_IPV6 = (
    r"to enable it, remove DisabledComponents from HKLM\SYSTEM\CurrentControlSet\Services\Tcpip6\Parameters"
    " and restart Windows"
)
_FAMILIES = {4: win.AF_INET, 6: win.AF_INET6}


class Interface:
    """An interface, and the record of changes to it. For one thread at a time."""

    def __init__(self, ip: IpHelper, luid: int, name: str, seconds_for_family: float = _SECONDS_FOR_FAMILY) -> None:
        """`seconds_for_family`: how long Windows may take to add IPv4 or IPv6 to a new interface."""
        self._ip = ip
        self._luid = luid
        self._name = name
        self._seconds_for_family = seconds_for_family
        self._before: dict[int, dict[str, int]] = {}  # Fields and their original values, by family.
        self._metric: int | None = None  # As given to `configure`.
        self._undo: list[tuple[str | Address | Network, Callable[[], None]]] = []

    def configure(self, settings: AdapterSettings) -> None:
        """Set its MTU, metric, addresses, routes and DNS; undo all of them if one is refused.

        Where IPv6 is disabled, log a warning, or raise `IPv6Unavailable` if only IPv6 was asked for. Also raises
        `PermissionDenied`, `AdapterGone`, and `AdapterError` for other refusals.
        """
        wanted: Sequence[Address | Network] = settings.addresses + settings.routes
        try:
            self._await_family(4)
            ipv6 = [item for item in wanted if item.version == 6]
            there = [4, 6] if ipv6 and self._await_family(6) else [4]
            if ipv6 and 6 not in there:
                self._go_without(ipv6, len(ipv6) == len(wanted))
            self.set_mtu(settings.mtu or DEFAULT_MTU)
            for version in there:
                # Addresses work at once, and no router is asked: the link has no neighbours.
                self._change(version, DadTransmits=0, RouterDiscoveryBehavior=win.RouterDiscoveryDisabled)
            if settings.metric is not None:
                for version in 4, 6:
                    if self._has(version):
                        self.set_metric(version, settings.metric)
            self._metric = settings.metric
            self._add(settings, there)
            windows = settings.windows or WindowsSettings()
            if windows.dns or windows.search:
                self.set_dns(windows.dns, windows.search)
            else:
                self._clear_dns()
        except BaseException:
            self.undo()
            raise

    def add(self, item: Address | Network) -> None:
        """Add an address or route, which is undone with the rest. Raises as `configure` does."""
        if not self._has(item.version):
            self._go_without([item], True)
        # As in `configure`, which leaves a family alone that it gives no address.
        self._change(item.version, DadTransmits=0, RouterDiscoveryBehavior=win.RouterDiscoveryDisabled)
        self._add_one(item, self._metric)

    def remove(self, item: Address | Network) -> None:
        """Remove an address or route that the interface has."""
        self._delete(item)
        self._undo = [(what, undo) for what, undo in self._undo if what != item]

    def set_mtu(self, mtu: int) -> None:
        """Set the MTU in bytes for both families. IPv6 keeps its MTU if `mtu` is too small for it."""
        for version in 4, 6:
            if (version == 4 or mtu >= MIN_IPV6_MTU) and self._has(version):
                self._change(version, NlMtu=mtu)

    def set_metric(self, version: int, metric: int | None) -> None:
        """Set the preference of its IPv4 or IPv6 routes, the smallest first; None leaves it to Windows."""
        self._change(version, UseAutomaticMetric=metric is None, Metric=metric or 0)

    def set_dns(self, servers: Iterable[IpAddress], domains: Iterable[str]) -> None:
        """Set its DNS servers, and the domains that are appended to short names.

        Raises `AdapterError` before Windows 10, build 19041.
        """
        servers, search = list(servers), ",".join(domains)
        for version, family in _FAMILIES.items():
            own = ",".join([str(server) for server in servers if server.version == version])
            if own or self._has(version):
                self._ip.set_dns(self._luid, family, own, search)
                self._undo.append(("DNS", partial(self._ip.set_dns, self._luid, family, "", "")))

    def describe(self) -> AdapterInfo:
        """Return the present state of the interface. Raises `AdapterGone`."""
        link = self._ip.link(self._luid)
        return _info(self._ip, link, text_of(link.Alias), self._ip.addresses(), self._ip.routes())

    def undo(self) -> None:
        """Undo all changes, the last first; those that vanished are undone already. May be repeated."""
        while self._undo:
            what, undo = self._undo.pop()
            try:
                undo()
            except AdapterError as error:
                if error_code(error) not in _GONE:
                    log.warning("%s: %s was not undone: %s", self._name, what, error.strerror)

    def _add(self, settings: AdapterSettings, there: Sequence[int]) -> None:
        networks = {address.network for address in settings.addresses}  # Windows adds the routes of these.
        routes = [route for route in settings.routes if route not in networks]
        for item in dict.fromkeys([*settings.addresses, *routes]):
            if item.version in there:
                self._add_one(item, settings.metric)

    def _add_one(self, item: Address | Network, metric: int | None) -> None:
        if not isinstance(item, Network):
            self._ip.add_address(self._luid, item.ip, item.network.prefixlen)
        else:
            if not item.prefixlen and metric is None:
                self.set_metric(item.version, 0)  # A default route must come before others to be used.
            self._ip.add_route(self._luid, item.network_address, item.prefixlen)
        self._undo.append((item, partial(self._delete, item)))

    def _delete(self, item: Address | Network) -> None:
        if isinstance(item, Network):
            self._ip.delete_route(self._luid, item.network_address, item.prefixlen)
        else:
            self._ip.delete_address(self._luid, item.ip)

    def _clear_dns(self) -> None:
        """Remove the DNS settings of a crashed program, which stay in the registry under the GUID."""
        for version, family in _FAMILIES.items():
            try:
                if self._has(version):
                    self._ip.set_dns(self._luid, family, "", "")
            except AdapterError as error:
                if error_code(error) not in _NO_DNS:
                    log.warning(
                        "%s: an earlier adapter's DNS settings were not removed: %s", self._name, error.strerror
                    )

    def _go_without(self, ipv6: Sequence[Address | Network], alone: bool) -> None:
        items = ", ".join([str(item) for item in ipv6])
        text = f"IPv6 is disabled here, so {self._name} does not get {items}; {_ENABLE_IPV6}"
        if alone:
            raise windows_error(IPv6Unavailable, ERROR_NOT_SUPPORTED, text)
        log.warning(text)

    def _await_family(self, version: int) -> bool:
        """Wait for Windows to add that family to a new interface; return False if it does not."""
        deadline = time.monotonic() + self._seconds_for_family
        while not (there := self._has(version)) and time.monotonic() < deadline:
            time.sleep(0.01)
        return there

    def _has(self, version: int) -> bool:
        return _family(self._ip, self._luid, version) is not None

    def _change(self, version: int, **fields: int) -> None:
        """Set fields of a family's row, and record the values before the first change."""
        family = _FAMILIES[version]
        row = self._ip.interface(self._luid, family)
        before = {field: getattr(row, field) for field in fields}
        self._write(row, fields)
        if family not in self._before:
            self._before[family] = {}
            self._undo.append((f"the IPv{version} settings", partial(self._restore, family)))
        self._before[family] = before | self._before[family]

    def _restore(self, family: int) -> None:
        self._write(self._ip.interface(self._luid, family), self._before.pop(family))

    def _write(self, row: win.MIB_IPINTERFACE_ROW, fields: dict[str, int]) -> None:
        for field, value in fields.items():
            setattr(row, field, value)
        self._ip.set_interface(row)


def describe_all(ip: IpHelper) -> list[AdapterInfo]:
    """Return the state of all virtual interfaces that carry bare IP packets, of all programs."""
    addresses, routes = ip.addresses(), ip.routes()
    links = [link for link in ip.links() if (link.Type, link.MediaType) == (win.IF_TYPE_PROP_VIRTUAL, win.NdisMediumIP)]
    return [_info(ip, link, text_of(link.Alias), addresses, routes) for link in links]


def _info(
    ip: IpHelper,
    link: win.MIB_IF_ROW2,
    name: str,
    addresses: Iterable[win.MIB_UNICASTIPADDRESS_ROW],
    routes: Iterable[win.MIB_IPFORWARD_ROW2],
) -> AdapterInfo:
    luid = link.InterfaceLuid.Value
    families = [row for version in (4, 6) if (row := _family(ip, luid, version))]
    return AdapterInfo(
        name=name,
        index=link.InterfaceIndex,
        mtu=families[0].NlMtu if families else link.Mtu,
        link_up=link.OperStatus == win.IfOperStatusUp,
        addresses=tuple(
            ipaddress.ip_interface((ip_of(row.Address).packed, row.OnLinkPrefixLength))
            for row in addresses
            if row.InterfaceLuid.Value == luid
        ),
        routes=tuple(
            ipaddress.ip_network((ip_of(row.DestinationPrefix.Prefix).packed, row.DestinationPrefix.PrefixLength))
            for row in routes
            if row.InterfaceLuid.Value == luid and row.Protocol != win.RouteProtocolLocal  # Added by Windows.
        ),
        # Windows transmits the packets that the program receives.
        statistics=AdapterStatistics(
            received_packets=link.OutUcastPkts + link.OutNUcastPkts,
            received_bytes=link.OutOctets,
            received_dropped=link.OutDiscards + link.OutErrors,
            sent_packets=link.InUcastPkts + link.InNUcastPkts,
            sent_bytes=link.InOctets,
            sent_dropped=link.InDiscards + link.InErrors + link.InUnknownProtos,
        ),
        luid=luid,
    )


def _family(ip: IpHelper, luid: int, version: int) -> win.MIB_IPINTERFACE_ROW | None:
    """Return the row of that family on the interface; None if the interface does not have it."""
    try:
        return ip.interface(luid, _FAMILIES[version])
    except AdapterError as error:
        if error_code(error) not in _NO_FAMILY:
            raise
        return None
