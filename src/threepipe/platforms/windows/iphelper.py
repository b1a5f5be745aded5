"""The calls of Windows' IP Helper (iphlpapi.dll), one method for each.

This module owns their arguments, the memory of their tables, and the errors for the codes they return. It knows rows;
`interface` knows how an adapter should look.
"""

import ctypes
import errno
import sys
from collections.abc import Iterator
from ctypes import POINTER, byref, c_uint16
from functools import cache
from typing import Any

from threepipe.errors import AdapterError, AdapterGone, AdapterUnavailable, PermissionDenied
from threepipe.platforms.windows import structures as win
from threepipe.platforms.windows.values import IpAddress, socket_address, text_of, wide
from threepipe.platforms.windows.winerror import (
    ERROR_ACCESS_DENIED,
    ERROR_FILE_NOT_FOUND,
    ERROR_INVALID_PARAMETER,
    ERROR_NOT_FOUND,
    ERROR_NOT_SUPPORTED,
    ERROR_OBJECT_ALREADY_EXISTS,
    ERROR_PROC_NOT_FOUND,
    NO_ERROR,
    reason,
    windows_error,
)

__all__ = ["IpAddress", "IpHelper", "system"]

_REFUSALS: dict[int, tuple[type[AdapterError], str]] = {
    ERROR_ACCESS_DENIED: (PermissionDenied, "access denied; use an elevated terminal"),
    ERROR_FILE_NOT_FOUND: (AdapterGone, "the adapter was removed by another program; create or open it again"),
    ERROR_NOT_FOUND: (AdapterError, "not found; another program may have removed it"),
    ERROR_NOT_SUPPORTED: (AdapterError, "not supported by this Windows; threepipe doctor shows if it has IPv6"),
    ERROR_INVALID_PARAMETER: (AdapterError, "Windows refuses the value; give another"),
    ERROR_OBJECT_ALREADY_EXISTS: (
        AdapterError,
        "the system has it already, perhaps on another adapter; remove it there",
    ),
}
"""The exception and its text, by Windows' code."""


@cache
def system() -> "IpHelper":
    """Return the IP Helper of this Windows; the first call loads it. Raises `AdapterUnavailable` elsewhere."""
    if sys.platform != "win32":
        raise AdapterUnavailable(errno.ENOSYS, "only Windows has an IP Helper")
    return IpHelper(ctypes.WinDLL("iphlpapi"))


class IpHelper:
    """A loaded iphlpapi.dll, or a stand-in with the same functions. Thread-safe, as the functions are.

    Every method raises `PermissionDenied`, `AdapterGone` or `AdapterError` with Windows' code. A `luid` is the number
    in a NET_LUID, and a family is AF_INET or AF_INET6 of `structures`.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions: dict[str, Any] = {}
        for name, (result, arguments) in {**win.FUNCTIONS, **win.NEWER_FUNCTIONS}.items():
            if hasattr(library, name):  # Older Windows, and Wine, lack some.
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
                self._functions[name] = function

    def index_of(self, luid: int) -> int:
        """Return the interface's index (ConvertInterfaceLuidToIndex)."""
        index = ctypes.c_uint32()
        self._call("looking up the adapter's index", "ConvertInterfaceLuidToIndex", _luid(luid), byref(index))
        return index.value

    def alias_of(self, luid: int) -> str:
        """Return the interface's name, as Windows shows it (ConvertInterfaceLuidToAlias)."""
        alias = (c_uint16 * (win.IF_MAX_STRING_SIZE + 1))()
        self._call("looking up the adapter's name", "ConvertInterfaceLuidToAlias", _luid(luid), alias, len(alias))
        return text_of(alias)

    def luid_of(self, alias: str) -> int | None:
        """Return the LUID of the interface of that name, ignoring case, or None (ConvertInterfaceAliasToLuid)."""
        luid = win.NET_LUID()
        code = self._function("ConvertInterfaceAliasToLuid")(wide(alias), byref(luid))
        return int(luid.Value) if code == NO_ERROR else None

    def link(self, luid: int) -> win.MIB_IF_ROW2:
        """Return the interface's properties and counters (GetIfEntry2)."""
        row = win.MIB_IF_ROW2()
        row.InterfaceLuid.Value = luid
        self._call("asking about the adapter", "GetIfEntry2", byref(row))
        return row

    def links(self) -> list[win.MIB_IF_ROW2]:
        """Return the properties and counters of all interfaces (GetIfTable2)."""
        return list(self._rows("GetIfTable2", win.MIB_IF_TABLE2, win.MIB_IF_ROW2))

    def interface(self, luid: int, family: int) -> win.MIB_IPINTERFACE_ROW:
        """Return the settings of one family on the interface (GetIpInterfaceEntry).

        The code ERROR_NOT_FOUND means that the interface does not have that family.
        """
        row = win.MIB_IPINTERFACE_ROW()
        self._function("InitializeIpInterfaceEntry")(byref(row))
        row.InterfaceLuid.Value, row.Family = luid, family
        self._call(f"asking about {_FAMILY_NAMES[family]}", "GetIpInterfaceEntry", byref(row))
        return row

    def set_interface(self, row: win.MIB_IPINTERFACE_ROW) -> None:
        """Apply the settings in `row`, which `interface` returned (SetIpInterfaceEntry)."""
        if row.Family == win.AF_INET:
            row.SitePrefixLength = 0  # The function refuses the value that it returned, says its documentation.
        self._call(f"setting up {_FAMILY_NAMES[row.Family]}", "SetIpInterfaceEntry", byref(row))

    def addresses(self) -> list[win.MIB_UNICASTIPADDRESS_ROW]:
        """Return all addresses of both families on all interfaces (GetUnicastIpAddressTable)."""
        table, row = win.MIB_UNICASTIPADDRESS_TABLE, win.MIB_UNICASTIPADDRESS_ROW
        return list(self._rows("GetUnicastIpAddressTable", table, row, win.AF_UNSPEC))

    def add_address(self, luid: int, address: IpAddress, prefix_length: int) -> None:
        """Add an address to the interface, usable at once (CreateUnicastIpAddressEntry)."""
        row = self._address_row(luid, address)
        row.OnLinkPrefixLength = prefix_length
        # No duplicate address detection: the link has no other nodes.
        row.DadState = win.IpDadStatePreferred
        row.SkipAsSource = False
        self._call(f"adding {address}/{prefix_length}", "CreateUnicastIpAddressEntry", byref(row))

    def delete_address(self, luid: int, address: IpAddress) -> None:
        """Remove an address (DeleteUnicastIpAddressEntry)."""
        row = self._address_row(luid, address)
        self._call(f"removing {address}", "DeleteUnicastIpAddressEntry", byref(row))

    def routes(self) -> list[win.MIB_IPFORWARD_ROW2]:
        """Return all routes of both families (GetIpForwardTable2)."""
        table, row = win.MIB_IPFORWARD_TABLE2, win.MIB_IPFORWARD_ROW2
        return list(self._rows("GetIpForwardTable2", table, row, win.AF_UNSPEC))

    def add_route(self, luid: int, network: IpAddress, prefix_length: int) -> None:
        """Route a network to the interface, without a next hop (CreateIpForwardEntry2)."""
        row = self._route_row(luid, network, prefix_length)
        row.Metric = 0  # Windows adds the interface's metric.
        self._call(f"adding the route {network}/{prefix_length}", "CreateIpForwardEntry2", byref(row))

    def delete_route(self, luid: int, network: IpAddress, prefix_length: int) -> None:
        """Remove a route (DeleteIpForwardEntry2)."""
        row = self._route_row(luid, network, prefix_length)
        self._call(f"removing the route {network}/{prefix_length}", "DeleteIpForwardEntry2", byref(row))

    def check_dns(self) -> None:
        """Raise `AdapterError` if this Windows cannot do `set_dns`."""
        if "SetInterfaceDnsSettings" not in self._functions:
            raise windows_error(AdapterError, ERROR_PROC_NOT_FOUND, _NO_DNS_SETTINGS)

    def set_dns(self, luid: int, family: int, servers: str, domains: str) -> None:
        """Set the interface's DNS servers of a family and its search domains, both separated by commas.

        An empty text removes them (SetInterfaceDnsSettings, of Windows 10, build 19041, and newer).
        """
        self.check_dns()
        guid = win.GUID()
        self._call("looking up the adapter's GUID", "ConvertInterfaceLuidToGuid", _luid(luid), byref(guid))
        strings = wide(servers), wide(domains)  # These must live until the call returns.
        settings = win.DNS_INTERFACE_SETTINGS(Version=win.DNS_INTERFACE_SETTINGS_VERSION1)
        settings.Flags = win.DNS_SETTING_NAMESERVER | win.DNS_SETTING_SEARCHLIST
        if family == win.AF_INET6:
            settings.Flags |= win.DNS_SETTING_IPV6
        settings.NameServer, settings.SearchList = map(ctypes.addressof, strings)
        self._call("setting DNS", "SetInterfaceDnsSettings", guid, byref(settings))

    def _address_row(self, luid: int, address: IpAddress) -> win.MIB_UNICASTIPADDRESS_ROW:
        row = win.MIB_UNICASTIPADDRESS_ROW()
        self._function("InitializeUnicastIpAddressEntry")(byref(row))  # Sets infinite lifetimes.
        row.InterfaceLuid.Value, row.Address = luid, socket_address(address)
        return row

    def _route_row(self, luid: int, network: IpAddress, prefix_length: int) -> win.MIB_IPFORWARD_ROW2:
        row = win.MIB_IPFORWARD_ROW2()
        self._function("InitializeIpForwardEntry")(byref(row))
        row.InterfaceLuid.Value = luid
        row.DestinationPrefix.Prefix, row.DestinationPrefix.PrefixLength = socket_address(network), prefix_length
        row.NextHop = socket_address(type(network)(0))
        return row

    def _rows(self, name: str, table: type[Any], row: type[Any], *arguments: int) -> Iterator[Any]:
        """Yield copies of the rows of a table that Windows allocates, then free the table."""
        pointer = POINTER(table)()
        self._call("reading a table of the system", name, *arguments, byref(pointer))
        try:
            start = ctypes.addressof(pointer.contents) + table.Table.offset
            size = ctypes.sizeof(row)
            for address in range(start, start + pointer.contents.NumEntries * size, size):
                yield row.from_buffer_copy(ctypes.string_at(address, size))
        finally:
            self._function("FreeMibTable")(pointer)

    def _call(self, doing: str, name: str, *arguments: object) -> None:
        if (code := self._function(name)(*arguments)) != NO_ERROR:
            kind, advice = _REFUSALS.get(code, (AdapterError, reason(code)))
            raise windows_error(kind, code, f"{doing}: {advice}")

    def _function(self, name: str) -> Any:
        if function := self._functions.get(name):
            return function
        raise windows_error(AdapterError, ERROR_PROC_NOT_FOUND, f"this Windows has no {name}; use a newer one")


_FAMILY_NAMES = {win.AF_INET: "IPv4", win.AF_INET6: "IPv6"}

_NO_DNS_SETTINGS = (
    "programs can set DNS since Windows 10, build 19041 (SetInterfaceDnsSettings), and this Windows is older;"
    " set NameServer and SearchList in the registry, below the adapter's GUID in"
    r" HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters\Interfaces, and the same below Tcpip6"
)


def _luid(luid: int) -> Any:
    return byref(win.NET_LUID(luid))
