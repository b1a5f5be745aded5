/* The contract of Wintun 0.14 and the controls of a library of ours that keeps it without a driver.
 *
 * Owns the exported names, types and numbers; must not know how any of it is done. The same source is built as
 * contract.dll for Windows and as libcontract.so for Linux, where
 *   - the last error is errno: the same codes, to be read at once after a call that failed;
 *   - WCHAR is wchar_t of 4 bytes, and the calling convention is the usual one;
 *   - an event is an eventfd, not blocking, given as a number in a HANDLE: poll it, then read its 8 bytes to reset it.
 * Where Wintun's behaviour was inferred and not read, the text says so.
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
#ifndef ERROR_INF_IN_USE_BY_DEVICES /* Of setupapi.h, which is long. */
#define ERROR_INF_IN_USE_BY_DEVICES ((DWORD)0xE000023D)
#endif

/* ---- The 14 functions, as a program sees them. ---- */

typedef struct adapter *WINTUN_ADAPTER_HANDLE;
typedef struct session *WINTUN_SESSION_HANDLE;

enum { WINTUN_MIN_RING_CAPACITY = 0x20000, WINTUN_MAX_RING_CAPACITY = 0x4000000, WINTUN_MAX_IP_PACKET_SIZE = 0xFFFF };

typedef enum { WINTUN_LOG_INFO, WINTUN_LOG_WARN, WINTUN_LOG_ERR } WINTUN_LOGGER_LEVEL;

/* Called on any thread, in the midst of any other function. Timestamp is a FILETIME: 100 ns since 1601, UTC. */
typedef VOID(CALLBACK *WINTUN_LOGGER_CALLBACK)(WINTUN_LOGGER_LEVEL Level, DWORD64 Timestamp, LPCWSTR Message);

/* Makes an adapter with the description "TunnelType Tunnel" and the GUID asked for (NULL: a random one). Where its Name
 * is taken, whatever has it becomes "Name 1", or "Name 2" and so on; where that cannot be renamed the new adapter is.
 * Nobody is told. Takes the leftovers of crashed programs away first. NULL with ERROR_ALREADY_EXISTS where the GUID is
 * in use (inferred), ERROR_BUFFER_OVERFLOW where a text has more than 127 characters (inferred). */
CONTRACT_EXPORT WINTUN_ADAPTER_HANDLE WINAPI WintunCreateAdapter(
    LPCWSTR Name, LPCWSTR TunnelType, const GUID *RequestedGUID);

/* Another handle of an adapter that there is; names are compared without case. NULL with ERROR_NOT_FOUND. */
CONTRACT_EXPORT WINTUN_ADAPTER_HANDLE WINAPI WintunOpenAdapter(LPCWSTR Name);

/* Removes the adapter, where this handle created it; one that was opened is only let go. */
CONTRACT_EXPORT VOID WINAPI WintunCloseAdapter(WINTUN_ADAPTER_HANDLE Adapter);

CONTRACT_EXPORT VOID WINAPI WintunGetAdapterLUID(WINTUN_ADAPTER_HANDLE Adapter, NET_LUID *Luid);

/* major << 16 | minor, while there is any adapter; else 0 with ERROR_FILE_NOT_FOUND. */
CONTRACT_EXPORT DWORD WINAPI WintunGetRunningDriverVersion(VOID);

/* FALSE with ERROR_INF_IN_USE_BY_DEVICES (inferred) while there are adapters. */
CONTRACT_EXPORT BOOL WINAPI WintunDeleteDriver(VOID);

CONTRACT_EXPORT VOID WINAPI WintunSetLogger(WINTUN_LOGGER_CALLBACK NewLogger);

/* Connects the adapter, with a ring of Capacity bytes each way. NULL with ERROR_INVALID_PARAMETER where Capacity is no
 * power of two in range, ERROR_ALREADY_INITIALIZED while it has a session, ERROR_FILE_NOT_FOUND where the adapter is
 * gone (inferred). Here, one process does not see the adapters of another. */
CONTRACT_EXPORT WINTUN_SESSION_HANDLE WINAPI WintunStartSession(WINTUN_ADAPTER_HANDLE Adapter, DWORD Capacity);

/* Every pointer into the session dies, and so does its event. Nobody may be inside of a call, or wait. */
CONTRACT_EXPORT VOID WINAPI WintunEndSession(WINTUN_SESSION_HANDLE Session);

/* Auto-reset; set after every packet put into the ring, and when the adapter goes. Good until WintunEndSession. */
CONTRACT_EXPORT HANDLE WINAPI WintunGetReadWaitEvent(WINTUN_SESSION_HANDLE Session);

/* The next packet, in the ring itself, until it is released. NULL with ERROR_NO_MORE_ITEMS, ERROR_HANDLE_EOF when the
 * adapter is gone, ERROR_INVALID_DATA when the ring is corrupt. */
CONTRACT_EXPORT BYTE *WINAPI WintunReceivePacket(WINTUN_SESSION_HANDLE Session, DWORD *PacketSize);

/* In any order; room comes back in the order of the ring. What was released is overwritten, to show who still reads. */
CONTRACT_EXPORT VOID WINAPI WintunReleaseReceivePacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet);

/* Room for a packet. NULL with ERROR_BUFFER_OVERFLOW when the ring is full, ERROR_HANDLE_EOF when the adapter is gone
 * or the driver has given this direction up. Does not check PacketSize. */
CONTRACT_EXPORT BYTE *WINAPI WintunAllocateSendPacket(WINTUN_SESSION_HANDLE Session, DWORD PacketSize);

/* In any order; packets leave in the order of their allocation, so one that is never sent holds all later ones. */
CONTRACT_EXPORT VOID WINAPI WintunSendPacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet);

/* ---- The network behind an adapter. ---- */

/* From its next session on, the adapter Name is a UDP port of 127.0.0.1: each packet the program sends leaves as one
 * datagram to RemotePort, each datagram to LocalPort (0: any free one) is given to the program. RemotePort 0 undoes it.
 * The variable THREEPIPE_CONTRACT_UDP="NAME:LOCALPORT:REMOTEPORT[,...]" does the same where this was not called. */
CONTRACT_EXPORT VOID WINAPI ContractSetNetwork(LPCWSTR Name, DWORD LocalPort, DWORD RemotePort);

/* The local port of the running session, 0 without one or without a network. */
CONTRACT_EXPORT DWORD WINAPI ContractGetNetworkPort(WINTUN_ADAPTER_HANDLE Adapter);

/* Without a network packets are queued for ContractTake, up to 64 MiB and then the ring fills up; or, if Discard, only
 * counted. To be called while no session runs, or while nothing is sent. */
CONTRACT_EXPORT VOID WINAPI ContractSetDiscard(WINTUN_ADAPTER_HANDLE Adapter, BOOL Discard);

/* Put a packet of any bytes, 65535 of them at most, into the ring that the program receives from. FALSE, and counted
 * as dropped, without a session or room. */
CONTRACT_EXPORT BOOL WINAPI ContractInject(WINTUN_ADAPTER_HANDLE Adapter, const BYTE *Packet, DWORD Size);

/* The same packet Count times, until one finds no room, which counts as dropped; how many were put in. */
CONTRACT_EXPORT DWORD WINAPI ContractInjectMany(
    WINTUN_ADAPTER_HANDLE Adapter, const BYTE *Packet, DWORD Size, DWORD Count);

/* The oldest packet that the program sent, copied to Packet; its size. Waits for one up to Milliseconds. 0 with
 * ERROR_NO_MORE_ITEMS, or ERROR_BUFFER_OVERFLOW where it is larger than Size and stays. Good after the session, too. */
CONTRACT_EXPORT DWORD WINAPI ContractTake(WINTUN_ADAPTER_HANDLE Adapter, BYTE *Packet, DWORD Size, DWORD Milliseconds);

/* Wait until the driver has taken all that was sent, or has given up; FALSE after Milliseconds. */
CONTRACT_EXPORT BOOL WINAPI ContractSettle(WINTUN_ADAPTER_HANDLE Adapter, DWORD Milliseconds);

/* ---- What there is. ---- */

typedef struct {
    WCHAR Name[128];
    WCHAR Description[264];
    GUID InterfaceGuid;
    NET_LUID InterfaceLuid; /* The index is Info.NetLuidIndex. */
    DWORD Kind;             /* CONTRACT_ADAPTER and so on. */
    BOOL Connected;         /* Whether a session runs. */
} CONTRACT_INTERFACE;

/* As Windows counts them on the interface, named from the program. */
typedef struct {
    DWORD64 ReceivedPackets, ReceivedBytes;
    DWORD64 ReceivedDropped; /* For the program, without room or session: ifOutDiscards. */
    DWORD64 SentPackets, SentBytes;
    DWORD64 SentDiscarded; /* No IP packets: ifInDiscards. */
    DWORD64 NetworkErrors; /* Datagrams that the socket did not take. */
} CONTRACT_STATISTICS;

enum {
    CONTRACT_ADAPTER,   /* Made by WintunCreateAdapter. */
    CONTRACT_NEIGHBOUR, /* Of somebody else, can be renamed. */
    CONTRACT_FIXED,     /* Of somebody else, cannot be renamed. */
    CONTRACT_LEFTOVER,  /* An adapter of a program that crashed: gone with the next create, open, close or delete. */
};

/* An interface that is none of ours, of one of the last three kinds. FALSE where the name is taken. */
CONTRACT_EXPORT BOOL WINAPI ContractAddInterface(LPCWSTR Name, DWORD Kind);

/* Fill up to Count descriptions and return how many interfaces there are. */
CONTRACT_EXPORT DWORD WINAPI ContractListInterfaces(CONTRACT_INTERFACE *Descriptions, DWORD Count);

CONTRACT_EXPORT VOID WINAPI ContractDescribe(WINTUN_ADAPTER_HANDLE Adapter, CONTRACT_INTERFACE *Description);

/* What the program was given is counted, and what it sent, which the driver takes first unless it is stalled. */
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

/* The next Times calls of Function, whether they fail or not, first sleep inside of it. Any later call of this, and
 * ContractReset, wakes all that sleep. */
CONTRACT_EXPORT BOOL WINAPI ContractDelayCall(DWORD Function, DWORD Milliseconds, DWORD Times);

enum {
    CONTRACT_FAULT_STALL,        /* While Value is not 0 the driver takes nothing, so the ring can be filled. */
    CONTRACT_FAULT_LOST_WAKEUPS, /* The next Value packets for the program set no event. */
    CONTRACT_FAULT_CORRUPT_SIZE, /* A record that says it has Value bytes, in 8 bytes of ring, for the program. */
    CONTRACT_FAULT_CORRUPT_TAIL, /* The ring for the program has the tail Value. */
    CONTRACT_FAULT_CORRUPT_HEAD, /* The ring from the program has the head Value; 0xFFFFFFFF: the driver gave up. */
    CONTRACT_FAULT_TERMINATE,    /* The adapter goes, as when a person removes it: both rings end. */
};

/* Do that to the running session of Adapter. FALSE with ERROR_NOT_FOUND without one, FALSE without room in the ring. */
CONTRACT_EXPORT BOOL WINAPI ContractSetFault(WINTUN_ADAPTER_HANDLE Adapter, DWORD Fault, DWORD Value);

/* ---- What callers did wrong, and what they did that is rare. ---- */

typedef struct {
    /* Wrong, and deadly with the real library. A call on what was ended or closed fails with ERROR_INVALID_HANDLE, a
     * packet that is given back wrongly is left alone. */
    DWORD64 UseAfterEnd;     /* A session handle after WintunEndSession. */
    DWORD64 EndInsideCall;   /* WintunEndSession while another thread was inside of a call on it, which it waits for. */
    DWORD64 UseAfterClose;   /* An adapter handle after WintunCloseAdapter. */
    DWORD64 WrongRelease;    /* Of a packet that was released before, or never received. */
    DWORD64 WrongSend;       /* Of a packet that was sent before, or never allocated. */
    DWORD64 OversizedPacket; /* An allocation of more than 65535 bytes; it is served, and the driver gives up on it. */
    /* Allowed. */
    DWORD64 ReleasedOutOfOrder;
    DWORD64 SentOutOfOrder;
    DWORD64 UnreleasedAtEnd; /* Packets received and never released when their session ended. */
    DWORD64 UnsentAtEnd;     /* Packets allocated and never sent. */
    DWORD64 LostWakeups;     /* Times the event was not set, by CONTRACT_FAULT_LOST_WAKEUPS. */
    DWORD64 Adapters;        /* Handles that are open now. */
    DWORD64 Sessions;        /* Sessions that run now. */
    DWORD64 Sleepers;        /* Calls that ContractDelayCall has sleeping now. */
} CONTRACT_COUNTERS;

CONTRACT_EXPORT VOID WINAPI ContractCounters(CONTRACT_COUNTERS *Counters);

/* Whether what is wrong ends the process by abort() with a line on standard error, which it does by default under
 * AddressSanitizer only. */
CONTRACT_EXPORT VOID WINAPI ContractSetStrict(BOOL Strict);

/* Forget counters, calls that shall fail, networks and interfaces of others; adapters and sessions stay. */
CONTRACT_EXPORT VOID WINAPI ContractReset(VOID);

#endif
