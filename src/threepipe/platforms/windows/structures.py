# ruff: noqa: N801  (The names are Microsoft's.)
"""The structures, constants and functions of Windows' IP Helper, as declared in its headers.

Widths are explicit and characters are 16-bit numbers, so that a structure has the layout of Windows on every system;
a test compares all of them with the headers. 64 and 32 bits differ only in the pointers of `DNS_INTERFACE_SETTINGS`.
"""

import ctypes
from ctypes import POINTER, Structure, Union, c_int32, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any

__all__ = [
    "AF_INET",
    "AF_INET6",
    "AF_UNSPEC",
    "DNS_INTERFACE_SETTINGS",
    "DNS_INTERFACE_SETTINGS_VERSION1",
    "DNS_SETTING_IPV6",
    "DNS_SETTING_NAMESERVER",
    "DNS_SETTING_SEARCHLIST",
    "FUNCTIONS",
    "GUID",
    "IF_MAX_STRING_SIZE",
    "IF_TYPE_PROP_VIRTUAL",
    "MIB_IF_ROW2",
    "MIB_IF_TABLE2",
    "MIB_IPFORWARD_ROW2",
    "MIB_IPFORWARD_TABLE2",
    "MIB_IPINTERFACE_ROW",
    "MIB_UNICASTIPADDRESS_ROW",
    "MIB_UNICASTIPADDRESS_TABLE",
    "NET_LUID",
    "NEWER_FUNCTIONS",
    "SOCKADDR_INET",
    "IfOperStatusUp",
    "IpDadStatePreferred",
    "NdisMediumIP",
    "RouteProtocolLocal",
    "RouterDiscoveryDisabled",
]

# <ws2def.h>, <ifdef.h>, <ipifcons.h>, <ntddndis.h>, <nldef.h>
AF_UNSPEC = 0
AF_INET = 2
AF_INET6 = 23  # Windows' value; Python's socket module has that of the running system.
IF_MAX_STRING_SIZE = 256
IF_MAX_PHYS_ADDRESS_LENGTH = 32
IF_TYPE_PROP_VIRTUAL = 53
IfOperStatusUp = 1
NdisMediumIP = 19
ScopeLevelCount = 16
IpDadStatePreferred = 4
RouterDiscoveryDisabled = 0
RouteProtocolLocal = 2

# <netioapi.h> of Windows 10, build 19041, and newer
DNS_INTERFACE_SETTINGS_VERSION1 = 1
DNS_SETTING_IPV6 = 0x1
DNS_SETTING_NAMESERVER = 0x2
DNS_SETTING_SEARCHLIST = 0x4

_ENUM, _BOOLEAN, _ULONG, _ULONG64, _WCHAR = c_int32, c_uint8, c_uint32, c_uint64, c_uint16


class GUID(Structure):
    _fields_ = (("Data1", c_uint32), ("Data2", c_uint16), ("Data3", c_uint16), ("Data4", c_uint8 * 8))


class NET_LUID(Union):
    _fields_ = (("Value", _ULONG64),)


class SOCKADDR_IN(Structure):
    _fields_ = (("sin_family", c_uint16), ("sin_port", c_uint16), ("sin_addr", c_uint8 * 4), ("sin_zero", c_uint8 * 8))


class SOCKADDR_IN6(Structure):
    _fields_ = (
        ("sin6_family", c_uint16),
        ("sin6_port", c_uint16),
        ("sin6_flowinfo", _ULONG),
        ("sin6_addr", c_uint8 * 16),
        ("sin6_scope_id", _ULONG),
    )


class SOCKADDR_INET(Union):
    _fields_ = (("Ipv4", SOCKADDR_IN), ("Ipv6", SOCKADDR_IN6), ("si_family", c_uint16))


class MIB_UNICASTIPADDRESS_ROW(Structure):
    _fields_ = (
        ("Address", SOCKADDR_INET),
        ("InterfaceLuid", NET_LUID),
        ("InterfaceIndex", _ULONG),
        ("PrefixOrigin", _ENUM),
        ("SuffixOrigin", _ENUM),
        ("ValidLifetime", _ULONG),
        ("PreferredLifetime", _ULONG),
        ("OnLinkPrefixLength", c_uint8),
        ("SkipAsSource", _BOOLEAN),
        ("DadState", _ENUM),
        ("ScopeId", _ULONG),
        ("CreationTimeStamp", ctypes.c_int64),
    )


class MIB_IPINTERFACE_ROW(Structure):
    _fields_ = (
        ("Family", c_uint16),
        ("InterfaceLuid", NET_LUID),
        ("InterfaceIndex", _ULONG),
        ("MaxReassemblySize", _ULONG),
        ("InterfaceIdentifier", _ULONG64),
        ("MinRouterAdvertisementInterval", _ULONG),
        ("MaxRouterAdvertisementInterval", _ULONG),
        ("AdvertisingEnabled", _BOOLEAN),
        ("ForwardingEnabled", _BOOLEAN),
        ("WeakHostSend", _BOOLEAN),
        ("WeakHostReceive", _BOOLEAN),
        ("UseAutomaticMetric", _BOOLEAN),
        ("UseNeighborUnreachabilityDetection", _BOOLEAN),
        ("ManagedAddressConfigurationSupported", _BOOLEAN),
        ("OtherStatefulConfigurationSupported", _BOOLEAN),
        ("AdvertiseDefaultRoute", _BOOLEAN),
        ("RouterDiscoveryBehavior", _ENUM),
        ("DadTransmits", _ULONG),
        ("BaseReachableTime", _ULONG),
        ("RetransmitTime", _ULONG),
        ("PathMtuDiscoveryTimeout", _ULONG),
        ("LinkLocalAddressBehavior", _ENUM),
        ("LinkLocalAddressTimeout", _ULONG),
        ("ZoneIndices", _ULONG * ScopeLevelCount),
        ("SitePrefixLength", _ULONG),
        ("Metric", _ULONG),
        ("NlMtu", _ULONG),
        ("Connected", _BOOLEAN),
        ("SupportsWakeUpPatterns", _BOOLEAN),
        ("SupportsNeighborDiscovery", _BOOLEAN),
        ("SupportsRouterDiscovery", _BOOLEAN),
        ("ReachableTime", _ULONG),
        ("TransmitOffload", c_uint8),  # NL_INTERFACE_OFFLOAD_ROD: eight bits.
        ("ReceiveOffload", c_uint8),
        ("DisableDefaultRoutes", _BOOLEAN),
    )


class IP_ADDRESS_PREFIX(Structure):
    _fields_ = (("Prefix", SOCKADDR_INET), ("PrefixLength", c_uint8))


class MIB_IPFORWARD_ROW2(Structure):
    _fields_ = (
        ("InterfaceLuid", NET_LUID),
        ("InterfaceIndex", _ULONG),
        ("DestinationPrefix", IP_ADDRESS_PREFIX),
        ("NextHop", SOCKADDR_INET),
        ("SitePrefixLength", c_uint8),
        ("ValidLifetime", _ULONG),
        ("PreferredLifetime", _ULONG),
        ("Metric", _ULONG),
        ("Protocol", _ENUM),
        ("Loopback", _BOOLEAN),
        ("AutoconfigureAddress", _BOOLEAN),
        ("Publish", _BOOLEAN),
        ("Immortal", _BOOLEAN),
        ("Age", _ULONG),
        ("Origin", _ENUM),
    )


class MIB_IF_ROW2(Structure):
    _fields_ = (
        ("InterfaceLuid", NET_LUID),
        ("InterfaceIndex", _ULONG),
        ("InterfaceGuid", GUID),
        ("Alias", _WCHAR * (IF_MAX_STRING_SIZE + 1)),
        ("Description", _WCHAR * (IF_MAX_STRING_SIZE + 1)),
        ("PhysicalAddressLength", _ULONG),
        ("PhysicalAddress", c_uint8 * IF_MAX_PHYS_ADDRESS_LENGTH),
        ("PermanentPhysicalAddress", c_uint8 * IF_MAX_PHYS_ADDRESS_LENGTH),
        ("Mtu", _ULONG),
        ("Type", _ULONG),
        ("TunnelType", _ENUM),
        ("MediaType", _ENUM),
        ("PhysicalMediumType", _ENUM),
        ("AccessType", _ENUM),
        ("DirectionType", _ENUM),
        ("InterfaceAndOperStatusFlags", c_uint8),
        ("OperStatus", _ENUM),
        ("AdminStatus", _ENUM),
        ("MediaConnectState", _ENUM),
        ("NetworkGuid", GUID),
        ("ConnectionType", _ENUM),
        ("TransmitLinkSpeed", _ULONG64),
        ("ReceiveLinkSpeed", _ULONG64),
        ("InOctets", _ULONG64),
        ("InUcastPkts", _ULONG64),
        ("InNUcastPkts", _ULONG64),
        ("InDiscards", _ULONG64),
        ("InErrors", _ULONG64),
        ("InUnknownProtos", _ULONG64),
        ("InUcastOctets", _ULONG64),
        ("InMulticastOctets", _ULONG64),
        ("InBroadcastOctets", _ULONG64),
        ("OutOctets", _ULONG64),
        ("OutUcastPkts", _ULONG64),
        ("OutNUcastPkts", _ULONG64),
        ("OutDiscards", _ULONG64),
        ("OutErrors", _ULONG64),
        ("OutUcastOctets", _ULONG64),
        ("OutMulticastOctets", _ULONG64),
        ("OutBroadcastOctets", _ULONG64),
        ("OutQLen", _ULONG64),
    )


class MIB_UNICASTIPADDRESS_TABLE(Structure):
    _fields_ = (("NumEntries", _ULONG), ("Table", MIB_UNICASTIPADDRESS_ROW * 1))


class MIB_IPFORWARD_TABLE2(Structure):
    _fields_ = (("NumEntries", _ULONG), ("Table", MIB_IPFORWARD_ROW2 * 1))


class MIB_IF_TABLE2(Structure):
    _fields_ = (("NumEntries", _ULONG), ("Table", MIB_IF_ROW2 * 1))


class DNS_INTERFACE_SETTINGS(Structure):
    """The DNS settings; its strings are pointers to zero-terminated 16-bit characters, which must outlive it."""

    _fields_ = (
        ("Version", _ULONG),
        ("Flags", _ULONG64),
        ("Domain", c_void_p),
        ("NameServer", c_void_p),
        ("SearchList", c_void_p),
        ("RegistrationEnabled", _ULONG),
        ("RegisterAdapterName", _ULONG),
        ("EnableLLMNR", _ULONG),
        ("QueryAdapterName", _ULONG),
        ("ProfileNameServer", c_void_p),
    )


Prototype = tuple[Any, tuple[Any, ...]]

FUNCTIONS: dict[str, Prototype] = {
    "ConvertInterfaceLuidToIndex": (_ULONG, (POINTER(NET_LUID), POINTER(_ULONG))),
    "ConvertInterfaceLuidToGuid": (_ULONG, (POINTER(NET_LUID), POINTER(GUID))),
    "ConvertInterfaceLuidToAlias": (_ULONG, (POINTER(NET_LUID), POINTER(_WCHAR), c_size_t)),
    "ConvertInterfaceAliasToLuid": (_ULONG, (POINTER(_WCHAR), POINTER(NET_LUID))),
    "GetIfEntry2": (_ULONG, (POINTER(MIB_IF_ROW2),)),
    "GetIfTable2": (_ULONG, (POINTER(POINTER(MIB_IF_TABLE2)),)),
    "InitializeIpInterfaceEntry": (None, (POINTER(MIB_IPINTERFACE_ROW),)),
    "GetIpInterfaceEntry": (_ULONG, (POINTER(MIB_IPINTERFACE_ROW),)),
    "SetIpInterfaceEntry": (_ULONG, (POINTER(MIB_IPINTERFACE_ROW),)),
    "InitializeUnicastIpAddressEntry": (None, (POINTER(MIB_UNICASTIPADDRESS_ROW),)),
    "CreateUnicastIpAddressEntry": (_ULONG, (POINTER(MIB_UNICASTIPADDRESS_ROW),)),
    "DeleteUnicastIpAddressEntry": (_ULONG, (POINTER(MIB_UNICASTIPADDRESS_ROW),)),
    "GetUnicastIpAddressTable": (_ULONG, (c_uint16, POINTER(POINTER(MIB_UNICASTIPADDRESS_TABLE)))),
    "InitializeIpForwardEntry": (None, (POINTER(MIB_IPFORWARD_ROW2),)),
    "CreateIpForwardEntry2": (_ULONG, (POINTER(MIB_IPFORWARD_ROW2),)),
    "DeleteIpForwardEntry2": (_ULONG, (POINTER(MIB_IPFORWARD_ROW2),)),
    "GetIpForwardTable2": (_ULONG, (c_uint16, POINTER(POINTER(MIB_IPFORWARD_TABLE2)))),
    "FreeMibTable": (None, (c_void_p,)),
}
"""The result and argument types of functions, by name: <netioapi.h>, since Windows Vista."""

NEWER_FUNCTIONS: dict[str, Prototype] = {
    "SetInterfaceDnsSettings": (_ULONG, (GUID, POINTER(DNS_INTERFACE_SETTINGS))),
}
"""The same since Windows 10, build 19041."""
