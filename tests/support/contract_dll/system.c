/* The control functions for interfaces, descriptions and counts, and for reset. */
#include <wchar.h>

#include "adapter.h"
#include "faults.h"

enum { MAX_DESCRIPTION = sizeof((CONTRACT_INTERFACE){0}.Description) / sizeof(WCHAR) };

BOOL WINAPI ContractAddInterface(LPCWSTR Name, DWORD Kind)
{
    netifs_lock();
    bool free_name = !netif_find(Name) && Kind > CONTRACT_ADAPTER && Kind <= CONTRACT_LEFTOVER;
    struct netif *netif = free_name ? netif_add(L"", Kind, NULL) : NULL;
    if (netif)
        netif_name(netif, Name);
    netifs_unlock();
    return netif != NULL;
}

static void describe(const struct netif *netif, CONTRACT_INTERFACE *description)
{
    *description = (CONTRACT_INTERFACE){
        .InterfaceGuid = netif->guid,
        .InterfaceLuid = netif->luid,
        .Kind = netif->kind,
        .Connected = netif->driver && !netif->removed,
    };
    wcscpy(description->Name, netif->name);
    const WCHAR *format = netif->kind == CONTRACT_ADAPTER ? L"%ls Tunnel" : L"Interface%ls";
    swprintf(description->Description, MAX_DESCRIPTION, format, netif->tunnel_type);
}

DWORD WINAPI ContractListInterfaces(CONTRACT_INTERFACE *Descriptions, DWORD Count)
{
    uint32_t found = 0;
    netifs_lock();
    for (struct netif *netif = netif_first(); netif; netif = netif->next, found++)
        if (found < Count)
            describe(netif, &Descriptions[found]);
    netifs_unlock();
    return found;
}

VOID WINAPI ContractDescribe(WINTUN_ADAPTER_HANDLE Adapter, CONTRACT_INTERFACE *Description)
{
    struct netif *netif = adapter_enter(Adapter);
    if (!netif)
        return;
    netifs_lock();
    describe(netif, Description);
    netifs_unlock();
    adapter_leave(netif);
}

VOID WINAPI ContractStatistics(WINTUN_ADAPTER_HANDLE Adapter, CONTRACT_STATISTICS *Statistics)
{
    struct netif *netif = adapter_enter(Adapter);
    if (!netif)
        return;
    netifs_lock();
    if (netif->driver)
        driver_catch_up(netif->driver);
    netifs_unlock();
    *Statistics = (CONTRACT_STATISTICS){
        .ReceivedPackets = atomic_load(&netif->traffic.received_packets),
        .ReceivedBytes = atomic_load(&netif->traffic.received_bytes),
        .ReceivedDropped = atomic_load(&netif->traffic.received_dropped),
        .SentPackets = atomic_load(&netif->traffic.sent_packets),
        .SentBytes = atomic_load(&netif->traffic.sent_bytes),
        .SentDiscarded = atomic_load(&netif->traffic.sent_discarded),
        .NetworkErrors = atomic_load(&netif->traffic.network_errors),
    };
    adapter_leave(netif);
}

VOID WINAPI ContractReset(VOID)
{
    faults_reset();
    networks_reset();
    netifs_lock();
    for (uint32_t kind = CONTRACT_NEIGHBOUR; kind <= CONTRACT_LEFTOVER; kind++)
        netifs_remove_kind(kind);
    netifs_unlock();
}
