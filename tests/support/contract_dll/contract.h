/* The contract of Wintun 0.14, and the controls of a library that keeps it without a driver.
 *
 * Owns the exported names, types and numbers; must not know the implementation. The same source is built as
 * contract.dll for Windows and as libcontract.so for Linux, where
 *   - the last error is errno: the same codes; read it at once after a failed call;
 *   - WCHAR is wchar_t of 4 bytes, and the calling convention is the default one;
 *   - an event is a non-blocking eventfd, as a number in a HANDLE: poll it, then read its 8 bytes to reset it.
 * The text marks behaviour of Wintun that was inferred and not read in its sources.
 */
#ifndef CONTRACT_H
#define CONTRACT_H

#ifdef _WIN32
#include <windef.h>
#include <winerror.h>
#include <ifdef.h>
#define CONTRACT_EXPORT __declspec(dllexport)
#else
#include <stdint.h>
#include <wchar.h>
#define CONTRACT_EXPORT __attribute__((visibility("default")))
#define WINAPI
#define CALLBACK
#define VOID void
#define TRUE 1
#define FALSE 0
typedef int BOOL;
typedef uint8_t BYTE;
typedef uint32_t DWORD;
typedef uint64_t DWORD64;
typedef wchar_t WCHAR;
typedef const WCHAR *LPCWSTR;
typedef void *HANDLE;
typedef struct {
    uint32_t Data1;
    uint16_t Data2, Data3;
    uint8_t Data4[8];
} GUID;
typedef union {
    uint64_t Value;
    struct {
        uint64_t Reserved : 24, NetLuidIndex : 24, IfType : 16;
    } Info;
} NET_LUID;
#define ERROR_FILE_NOT_FOUND 2
#define ERROR_INVALID_HANDLE 6
#define ERROR_NOT_ENOUGH_MEMORY 8
#define ERROR_INVALID_DATA 13
#define ERROR_HANDLE_EOF 38
#define ERROR_INVALID_PARAMETER 87
#define ERROR_BUFFER_OVERFLOW 111
#define ERROR_ALREADY_EXISTS 183
#define ERROR_NO_MORE_ITEMS 259
#define ERROR_NOT_FOUND 1168
#define ERROR_ALREADY_INITIALIZED 1247
#define WSAEADDRINUSE 10048
#endif
#ifndef ERROR_INF_IN_USE_BY_DEVICES /* From setupapi.h, which is long. */
#define ERROR_INF_IN_USE_BY_DEVICES ((DWORD)0xE000023D)
#endif

/* ---- The 14 functions of Wintun. ---- */

typedef struct adapter *WINTUN_ADAPTER_HANDLE;
typedef struct session *WINTUN_SESSION_HANDLE;

enum { WINTUN_MIN_RING_CAPACITY = 0x20000, WINTUN_MAX_RING_CAPACITY = 0x4000000, WINTUN_MAX_IP_PACKET_SIZE = 0xFFFF };

typedef enum { WINTUN_LOG_INFO, WINTUN_LOG_WARN, WINTUN_LOG_ERR } WINTUN_LOGGER_LEVEL;

/* Called on any thread, during any other function. Timestamp is a FILETIME: 100 ns since 1601, UTC. */
typedef VOID(CALLBACK *WINTUN_LOGGER_CALLBACK)(WINTUN_LOGGER_LEVEL Level, DWORD64 Timestamp, LPCWSTR Message);

/* Make an adapter with the description "TunnelType Tunnel" and the requested GUID (NULL: a random one). If its Name is
 * taken, the other interface is renamed to "Name 1", or "Name 2" and so on; if that is impossible, the new adapter is.
 * No caller is told. Removes leftovers of crashed programs first. NULL with ERROR_ALREADY_EXISTS if the GUID is in use
 * (inferred), ERROR_BUFFER_OVERFLOW if a text has more than 127 characters (inferred). */
CONTRACT_EXPORT WINTUN_ADAPTER_HANDLE WINAPI WintunCreateAdapter(
    LPCWSTR Name, LPCWSTR TunnelType, const GUID *RequestedGUID);

/* Return another handle of an existing adapter; names are compared without case. NULL with ERROR_NOT_FOUND. */
CONTRACT_EXPORT WINTUN_ADAPTER_HANDLE WINAPI WintunOpenAdapter(LPCWSTR Name);

/* Remove the adapter if this handle created it; a handle that opened it is only closed. */
CONTRACT_EXPORT VOID WINAPI WintunCloseAdapter(WINTUN_ADAPTER_HANDLE Adapter);

CONTRACT_EXPORT VOID WINAPI WintunGetAdapterLUID(WINTUN_ADAPTER_HANDLE Adapter, NET_LUID *Luid);

/* Return major << 16 | minor while any adapter exists; else 0 with ERROR_FILE_NOT_FOUND. */
CONTRACT_EXPORT DWORD WINAPI WintunGetRunningDriverVersion(VOID);

/* Return FALSE with ERROR_INF_IN_USE_BY_DEVICES (inferred) while adapters exist. */
CONTRACT_EXPORT BOOL WINAPI WintunDeleteDriver(VOID);

CONTRACT_EXPORT VOID WINAPI WintunSetLogger(WINTUN_LOGGER_CALLBACK NewLogger);

/* Connect the adapter, with a ring of Capacity bytes each way. NULL with ERROR_INVALID_PARAMETER if Capacity is not a
 * power of two in range, ERROR_ALREADY_INITIALIZED while it has a session, ERROR_FILE_NOT_FOUND if the adapter is gone
 * (inferred). In this library, one process does not see the adapters of another. */
CONTRACT_EXPORT WINTUN_SESSION_HANDLE WINAPI WintunStartSession(WINTUN_ADAPTER_HANDLE Adapter, DWORD Capacity);

/* End the session; every pointer into it and its event become invalid. No thread may be in a call, or wait. */
CONTRACT_EXPORT VOID WINAPI WintunEndSession(WINTUN_SESSION_HANDLE Session);

/* Return an auto-reset event, set after every packet and when the adapter is removed. Valid until WintunEndSession. */
CONTRACT_EXPORT HANDLE WINAPI WintunGetReadWaitEvent(WINTUN_SESSION_HANDLE Session);

/* Return the next packet, in the ring itself, until it is released. NULL with ERROR_NO_MORE_ITEMS, ERROR_HANDLE_EOF if
 * the adapter is gone, ERROR_INVALID_DATA if the ring is corrupt. */
CONTRACT_EXPORT BYTE *WINAPI WintunReceivePacket(WINTUN_SESSION_HANDLE Session, DWORD *PacketSize);

/* Release packets in any order; room is freed in ring order. A released packet is overwritten, to reveal late reads. */
CONTRACT_EXPORT VOID WINAPI WintunReleaseReceivePacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet);

/* Return room for a packet. NULL with ERROR_BUFFER_OVERFLOW if the ring is full, ERROR_HANDLE_EOF if the adapter is
 * gone or the driver has stopped this direction. PacketSize is not checked. */
CONTRACT_EXPORT BYTE *WINAPI WintunAllocateSendPacket(WINTUN_SESSION_HANDLE Session, DWORD PacketSize);

/* Send packets in any order; they leave in order of allocation, so one that is never sent blocks all later ones. */
CONTRACT_EXPORT VOID WINAPI WintunSendPacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet);

/* ---- The network behind an adapter. ---- */

/* From its next session on, make the adapter Name a UDP port of 127.0.0.1: each packet that the program sends leaves as
 * a datagram to RemotePort, and the program receives each datagram to LocalPort (0: any free one). RemotePort 0 undoes
 * it. The variable THREEPIPE_CONTRACT_UDP="NAME:LOCALPORT:REMOTEPORT[,...]" does the same without a call. */
CONTRACT_EXPORT VOID WINAPI ContractSetNetwork(LPCWSTR Name, DWORD LocalPort, DWORD RemotePort);

/* Return the local port of the running session; 0 without a session or a network. */
CONTRACT_EXPORT DWORD WINAPI ContractGetNetworkPort(WINTUN_ADAPTER_HANDLE Adapter);

/* If Discard, only count packets. Else, without a network, they are queued for ContractTake, up to 64 MiB; then the
 * ring fills up. Call it while no session runs, or while no packet is sent. */
CONTRACT_EXPORT VOID WINAPI ContractSetDiscard(WINTUN_ADAPTER_HANDLE Adapter, BOOL Discard);

/* Put a packet of any bytes, 65535 at most, into the ring that the program receives from. FALSE, and counted as
 * dropped, without a session or room. */
CONTRACT_EXPORT BOOL WINAPI ContractInject(WINTUN_ADAPTER_HANDLE Adapter, const BYTE *Packet, DWORD Size);

/* Put the same packet Count times, until one finds no room and counts as dropped; return how many were put. */
CONTRACT_EXPORT DWORD WINAPI ContractInjectMany(
    WINTUN_ADAPTER_HANDLE Adapter, const BYTE *Packet, DWORD Size, DWORD Count);

/* Copy the oldest packet that the program sent to Packet, and return its size. Waits for one up to Milliseconds. 0 with
 * ERROR_NO_MORE_ITEMS, or ERROR_BUFFER_OVERFLOW if it is larger than Size and stays. Works after the session, too. */
CONTRACT_EXPORT DWORD WINAPI ContractTake(WINTUN_ADAPTER_HANDLE Adapter, BYTE *Packet, DWORD Size, DWORD Milliseconds);

/* Wait until the driver has taken all sent packets, or has stopped; FALSE after Milliseconds. */
CONTRACT_EXPORT BOOL WINAPI ContractSettle(WINTUN_ADAPTER_HANDLE Adapter, DWORD Milliseconds);

/* ---- Interfaces and their statistics. ---- */

typedef struct {
    WCHAR Name[128];
    WCHAR Description[264];
    GUID InterfaceGuid;
    NET_LUID InterfaceLuid; /* The index is Info.NetLuidIndex. */
    DWORD Kind;             /* CONTRACT_ADAPTER and so on. */
    BOOL Connected;         /* True while a session runs. */
} CONTRACT_INTERFACE;

/* Windows' counts of the interface, named from the side of the program. */
typedef struct {
    DWORD64 ReceivedPackets, ReceivedBytes;
    DWORD64 ReceivedDropped; /* Dropped without room or session: ifOutDiscards. */
    DWORD64 SentPackets, SentBytes;
    DWORD64 SentDiscarded; /* Not IP packets: ifInDiscards. */
    DWORD64 NetworkErrors; /* Datagrams that the socket rejected. */
} CONTRACT_STATISTICS;

enum {
    CONTRACT_ADAPTER,   /* Made by WintunCreateAdapter. */
    CONTRACT_NEIGHBOUR, /* A foreign interface that can be renamed. */
    CONTRACT_FIXED,     /* A foreign interface that cannot be renamed. */
    CONTRACT_LEFTOVER,  /* An adapter of a crashed program: the next create, open, close or delete removes it. */
};

/* Add an interface of one of the last three kinds. FALSE if the name is taken. */
CONTRACT_EXPORT BOOL WINAPI ContractAddInterface(LPCWSTR Name, DWORD Kind);

/* Fill up to Count descriptions and return how many interfaces there are. */
CONTRACT_EXPORT DWORD WINAPI ContractListInterfaces(CONTRACT_INTERFACE *Descriptions, DWORD Count);

CONTRACT_EXPORT VOID WINAPI ContractDescribe(WINTUN_ADAPTER_HANDLE Adapter, CONTRACT_INTERFACE *Description);

/* Return the counts of an interface, after the driver has taken all sent packets, unless it is stalled. */
CONTRACT_EXPORT VOID WINAPI ContractStatistics(WINTUN_ADAPTER_HANDLE Adapter, CONTRACT_STATISTICS *Statistics);

/* ---- Faults on demand. ---- */

enum { /* The functions, for the next two. */
    CONTRACT_CREATE_ADAPTER,
    CONTRACT_OPEN_ADAPTER,
    CONTRACT_CLOSE_ADAPTER,
    CONTRACT_GET_ADAPTER_LUID,
    CONTRACT_GET_RUNNING_DRIVER_VERSION,
    CONTRACT_DELETE_DRIVER,
    CONTRACT_SET_LOGGER,
    CONTRACT_START_SESSION,
    CONTRACT_END_SESSION,
    CONTRACT_GET_READ_WAIT_EVENT,
    CONTRACT_RECEIVE_PACKET,
    CONTRACT_RELEASE_RECEIVE_PACKET,
    CONTRACT_ALLOCATE_SEND_PACKET,
    CONTRACT_SEND_PACKET,
    CONTRACT_FUNCTIONS
};

/* The next Times calls of Function fail with Error and do nothing else. FALSE for functions that cannot fail. */
CONTRACT_EXPORT BOOL WINAPI ContractFailCall(DWORD Function, DWORD Error, DWORD Times);

/* The next Times calls of Function, failing or not, first sleep inside it. Any later call of this function, and of
 * ContractReset, wakes all sleepers. */
CONTRACT_EXPORT BOOL WINAPI ContractDelayCall(DWORD Function, DWORD Milliseconds, DWORD Times);

enum {
    CONTRACT_FAULT_STALL,        /* While Value is not 0, the driver takes nothing, so the ring can fill. */
    CONTRACT_FAULT_LOST_WAKEUPS, /* The next Value packets for the program set no event. */
    CONTRACT_FAULT_CORRUPT_SIZE, /* The program gets a record with the size Value in 8 bytes of ring. */
    CONTRACT_FAULT_CORRUPT_TAIL, /* The ring for the program has the tail Value. */
    CONTRACT_FAULT_CORRUPT_HEAD, /* The ring from the program has the head Value; 0xFFFFFFFF: the driver stopped. */
    CONTRACT_FAULT_TERMINATE,    /* The adapter is removed, as by an administrator: both rings end. */
};

/* Cause the fault in the session of Adapter. FALSE with ERROR_NOT_FOUND without one, FALSE without room in the ring. */
CONTRACT_EXPORT BOOL WINAPI ContractSetFault(WINTUN_ADAPTER_HANDLE Adapter, DWORD Fault, DWORD Value);

/* ---- Violations by callers, and rare but allowed uses. ---- */

typedef struct {
    /* Violations, fatal with the real library. A call on an ended or closed handle fails with ERROR_INVALID_HANDLE; a
     * packet that is returned wrongly is ignored. */
    DWORD64 UseAfterEnd;     /* A session handle after WintunEndSession. */
    DWORD64 EndInsideCall;   /* WintunEndSession while another thread was in a call on it, which it waits for. */
    DWORD64 UseAfterClose;   /* An adapter handle after WintunCloseAdapter. */
    DWORD64 WrongRelease;    /* The packet was released before, or never received. */
    DWORD64 WrongSend;       /* The packet was sent before, or never allocated. */
    DWORD64 OversizedPacket; /* An allocation of more than 65535 bytes; it succeeds, and the driver stops at it. */
    /* Allowed. */
    DWORD64 ReleasedOutOfOrder;
    DWORD64 SentOutOfOrder;
    DWORD64 UnreleasedAtEnd; /* Packets received and not released before their session ended. */
    DWORD64 UnsentAtEnd;     /* Packets allocated and not sent before their session ended. */
    DWORD64 LostWakeups;     /* How often CONTRACT_FAULT_LOST_WAKEUPS kept the event unset. */
    DWORD64 Adapters;        /* Open handles. */
    DWORD64 Sessions;        /* Running sessions. */
    DWORD64 Sleepers;        /* Calls that sleep by ContractDelayCall. */
} CONTRACT_COUNTERS;

CONTRACT_EXPORT VOID WINAPI ContractCounters(CONTRACT_COUNTERS *Counters);

/* Set strict mode: a violation ends the process by abort() with a line on standard error. It is the default under
 * AddressSanitizer only. */
CONTRACT_EXPORT VOID WINAPI ContractSetStrict(BOOL Strict);

/* Reset counters, planned failures, networks and foreign interfaces; adapters and sessions stay. */
CONTRACT_EXPORT VOID WINAPI ContractReset(VOID);

#endif
