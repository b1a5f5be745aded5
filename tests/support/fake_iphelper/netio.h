/* The part of <netioapi.h> that the fake needs: Windows' own in a build for Windows, else a copy by hand.
 *
 * Both have the layout of our ctypes definitions, which a test compares with the headers of Windows.
 */
#ifndef NETIO_H
#define NETIO_H

#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#include <winsock2.h>
#include <ws2ipdef.h>
#include <windows.h>
#include <iphlpapi.h>
#include <netioapi.h>
#else /* Windows' names, widths and values */

#define WINAPI
#define CONST const
#define NO_ERROR 0
#define ERROR_FILE_NOT_FOUND 2
#define ERROR_INVALID_PARAMETER 87
#define ERROR_NOT_FOUND 1168
#define ERROR_OBJECT_ALREADY_EXISTS 5010

typedef uint8_t UCHAR, UINT8, BOOLEAN;
typedef uint16_t WCHAR, ADDRESS_FAMILY;
typedef uint32_t ULONG, DWORD, NET_IFINDEX;
typedef uint64_t ULONG64;
typedef int32_t ENUM;
typedef size_t SIZE_T;
typedef WCHAR *PWSTR;

typedef union { int64_t QuadPart; } LARGE_INTEGER;
typedef union { ULONG Value; } SCOPE_ID;
typedef struct { uint32_t Data1; uint16_t Data2, Data3; uint8_t Data4[8]; } GUID;
typedef union { ULONG64 Value; } NET_LUID;
typedef struct { uint16_t sin_family, sin_port; uint8_t sin_addr[4], sin_zero[8]; } SOCKADDR_IN;
typedef struct {
    uint16_t sin6_family, sin6_port;
    ULONG sin6_flowinfo;
    uint8_t sin6_addr[16];
    ULONG sin6_scope_id;
} SOCKADDR_IN6;
typedef union { SOCKADDR_IN Ipv4; SOCKADDR_IN6 Ipv6; ADDRESS_FAMILY si_family; } SOCKADDR_INET;

typedef struct {
    SOCKADDR_INET Address;
    NET_LUID InterfaceLuid;
    NET_IFINDEX InterfaceIndex;
    ENUM PrefixOrigin, SuffixOrigin;
    ULONG ValidLifetime, PreferredLifetime;
    UINT8 OnLinkPrefixLength;
    BOOLEAN SkipAsSource;
    ENUM DadState;
    SCOPE_ID ScopeId;
    LARGE_INTEGER CreationTimeStamp;
} MIB_UNICASTIPADDRESS_ROW;

typedef struct {
    ADDRESS_FAMILY Family;
    NET_LUID InterfaceLuid;
    NET_IFINDEX InterfaceIndex;
    ULONG MaxReassemblySize;
    ULONG64 InterfaceIdentifier;
    ULONG MinRouterAdvertisementInterval, MaxRouterAdvertisementInterval;
    BOOLEAN AdvertisingEnabled, ForwardingEnabled, WeakHostSend, WeakHostReceive, UseAutomaticMetric;
    BOOLEAN UseNeighborUnreachabilityDetection, ManagedAddressConfigurationSupported;
    BOOLEAN OtherStatefulConfigurationSupported, AdvertiseDefaultRoute;
    ENUM RouterDiscoveryBehavior;
    ULONG DadTransmits, BaseReachableTime, RetransmitTime, PathMtuDiscoveryTimeout;
    ENUM LinkLocalAddressBehavior;
    ULONG LinkLocalAddressTimeout, ZoneIndices[16], SitePrefixLength, Metric, NlMtu;
    BOOLEAN Connected, SupportsWakeUpPatterns, SupportsNeighborDiscovery, SupportsRouterDiscovery;
    ULONG ReachableTime;
    UINT8 TransmitOffload, ReceiveOffload;
    BOOLEAN DisableDefaultRoutes;
} MIB_IPINTERFACE_ROW;

typedef struct { SOCKADDR_INET Prefix; UINT8 PrefixLength; } IP_ADDRESS_PREFIX;

typedef struct {
    NET_LUID InterfaceLuid;
    NET_IFINDEX InterfaceIndex;
    IP_ADDRESS_PREFIX DestinationPrefix;
    SOCKADDR_INET NextHop;
    UCHAR SitePrefixLength;
    ULONG ValidLifetime, PreferredLifetime, Metric;
    ENUM Protocol;
    BOOLEAN Loopback, AutoconfigureAddress, Publish, Immortal;
    ULONG Age;
    ENUM Origin;
} MIB_IPFORWARD_ROW2;

typedef struct {
    NET_LUID InterfaceLuid;
    NET_IFINDEX InterfaceIndex;
    GUID InterfaceGuid;
    WCHAR Alias[257], Description[257];
    ULONG PhysicalAddressLength;
    UCHAR PhysicalAddress[32], PermanentPhysicalAddress[32];
    ULONG Mtu, Type;
    ENUM TunnelType, MediaType, PhysicalMediumType, AccessType, DirectionType;
    UINT8 InterfaceAndOperStatusFlags;
    ENUM OperStatus, AdminStatus, MediaConnectState;
    GUID NetworkGuid;
    ENUM ConnectionType;
    ULONG64 TransmitLinkSpeed, ReceiveLinkSpeed;
    ULONG64 InOctets, InUcastPkts, InNUcastPkts, InDiscards, InErrors, InUnknownProtos;
    ULONG64 InUcastOctets, InMulticastOctets, InBroadcastOctets;
    ULONG64 OutOctets, OutUcastPkts, OutNUcastPkts, OutDiscards, OutErrors;
    ULONG64 OutUcastOctets, OutMulticastOctets, OutBroadcastOctets, OutQLen;
} MIB_IF_ROW2;

typedef struct { ULONG NumEntries; MIB_UNICASTIPADDRESS_ROW Table[1]; } MIB_UNICASTIPADDRESS_TABLE;
typedef struct { ULONG NumEntries; MIB_IPFORWARD_ROW2 Table[1]; } MIB_IPFORWARD_TABLE2;
typedef struct { ULONG NumEntries; MIB_IF_ROW2 Table[1]; } MIB_IF_TABLE2;

#endif

#define FAMILY_IPV4 2
#define FAMILY_IPV6 23

/* New in Windows 10, build 19041: the headers of mingw-w64 lack it. */
typedef struct {
    ULONG Version;
    ULONG64 Flags;
    PWSTR Domain, NameServer, SearchList;
    ULONG RegistrationEnabled, RegisterAdapterName, EnableLLMNR, QueryAdapterName;
    PWSTR ProfileNameServer;
} DNS_SETTINGS_OF_INTERFACE;

#endif
