/* adapter.h, and the functions of Wintun for adapters and for the driver. */
#include "adapter.h"

#include <stdlib.h>
#include <wchar.h>

#include "faults.h"
#include "log.h"

enum { DRIVER_VERSION = 0 << 16 | 14 };

/* Never freed: no other handle gets its address, so late use is detected. */
struct adapter {
    struct adapter *next;
    struct netif *netif; /* NULL after close. */
    bool created;
};

static struct adapter *handles; /* Protected by the lock of the interfaces. */

struct netif *adapter_enter(WINTUN_ADAPTER_HANDLE adapter)
{
    netifs_lock();
    struct netif *netif = adapter->netif ? netif_hold(adapter->netif) : NULL;
    netifs_unlock();
    if (!netif) {
        violation(USE_AFTER_CLOSE);
        set_last_error(ERROR_INVALID_HANDLE);
    }
    return netif;
}

void adapter_leave(struct netif *netif)
{
    netifs_lock();
    netif_release(netif);
    netifs_unlock();
}

/* Make another handle, with the lock of the interfaces held; NULL without memory. */
static struct adapter *new_handle(struct netif *netif, bool created)
{
    struct adapter *adapter = calloc(1, sizeof *adapter);
    if (!adapter)
        return NULL;
    *adapter = (struct adapter){.next = handles, .netif = netif_hold(netif), .created = created};
    handles = adapter;
    count(ADAPTERS, 1);
    return adapter;
}

/* Return the handle of a new adapter; NULL with an error. */
static struct adapter *create(const WCHAR *name, const WCHAR *tunnel_type, const GUID *guid, uint32_t *error)
{
    struct adapter *adapter = NULL;
    netifs_lock();
    netifs_remove_kind(CONTRACT_LEFTOVER);
    if (wcslen(name) >= MAX_TEXT || wcslen(tunnel_type) >= MAX_TEXT) {
        *error = ERROR_BUFFER_OVERFLOW;
    } else if (guid && netif_find_guid(guid)) {
        *error = ERROR_ALREADY_EXISTS;
    } else {
        struct netif *netif = netif_add(tunnel_type, CONTRACT_ADAPTER, guid);
        *error = ERROR_NOT_ENOUGH_MEMORY;
        if (netif) {
            netif_name(netif, name);
            if (!(adapter = new_handle(netif, true)))
                netif_remove(netif);
        }
    }
    netifs_unlock();
    return adapter;
}

WINTUN_ADAPTER_HANDLE WINAPI WintunCreateAdapter(LPCWSTR Name, LPCWSTR TunnelType, const GUID *RequestedGUID)
{
    log_line(WINTUN_LOG_INFO, L"Creating adapter %ls", Name);
    log_line_elsewhere(WINTUN_LOG_INFO, L"Waiting for the interface of the adapter");
    uint32_t error = fault_of_call(CONTRACT_CREATE_ADAPTER);
    struct adapter *adapter = error ? NULL : create(Name, TunnelType, RequestedGUID, &error);
    if (!adapter) {
        log_line(WINTUN_LOG_ERR, L"Failed to create adapter %ls (Code 0x%08X)", Name, error);
        set_last_error(error);
    }
    return adapter;
}

WINTUN_ADAPTER_HANDLE WINAPI WintunOpenAdapter(LPCWSTR Name)
{
    struct adapter *adapter = NULL;
    uint32_t error = fault_of_call(CONTRACT_OPEN_ADAPTER);
    if (!error) {
        netifs_lock();
        netifs_remove_kind(CONTRACT_LEFTOVER);
        struct netif *netif = netif_find(Name);
        error = ERROR_NOT_FOUND;
        if (netif && netif->kind == CONTRACT_ADAPTER && !(adapter = new_handle(netif, false)))
            error = ERROR_NOT_ENOUGH_MEMORY;
        netifs_unlock();
    }
    if (!adapter) {
        log_line(WINTUN_LOG_ERR, L"Failed to find matching adapter name %ls (Code 0x%08X)", Name, error);
        set_last_error(error);
    }
    return adapter;
}

VOID WINAPI WintunCloseAdapter(WINTUN_ADAPTER_HANDLE Adapter)
{
    if (!Adapter)
        return;
    fault_of_call(CONTRACT_CLOSE_ADAPTER);
    netifs_lock();
    struct netif *netif = Adapter->netif;
    if (netif) {
        Adapter->netif = NULL;
        netifs_remove_kind(CONTRACT_LEFTOVER);
        if (Adapter->created)
            netif_remove(netif);
        netif_release(netif);
        count(ADAPTERS, -1);
    }
    netifs_unlock();
    if (!netif)
        violation(USE_AFTER_CLOSE);
    else if (Adapter->created)
        log_line(WINTUN_LOG_INFO, L"Removed an adapter");
}

VOID WINAPI WintunGetAdapterLUID(WINTUN_ADAPTER_HANDLE Adapter, NET_LUID *Luid)
{
    fault_of_call(CONTRACT_GET_ADAPTER_LUID);
    struct netif *netif = adapter_enter(Adapter);
    Luid->Value = netif ? netif->luid.Value : 0;
    if (netif)
        adapter_leave(netif);
}

/* Whether the driver runs, which it does for its adapters; what crashed ones left goes first where that is asked. */
static bool has_adapters(bool clean)
{
    netifs_lock();
    if (clean)
        netifs_remove_kind(CONTRACT_LEFTOVER);
    struct netif *netif = netif_first();
    while (netif && netif->kind != CONTRACT_ADAPTER && netif->kind != CONTRACT_LEFTOVER)
        netif = netif->next;
    netifs_unlock();
    return netif;
}

DWORD WINAPI WintunGetRunningDriverVersion(VOID)
{
    uint32_t error = fault_of_call(CONTRACT_GET_RUNNING_DRIVER_VERSION);
    if (!error && !has_adapters(false))
        error = ERROR_FILE_NOT_FOUND;
    if (!error)
        return DRIVER_VERSION;
    set_last_error(error);
    return 0;
}

BOOL WINAPI WintunDeleteDriver(VOID)
{
    uint32_t error = fault_of_call(CONTRACT_DELETE_DRIVER);
    if (!error && has_adapters(true))
        error = ERROR_INF_IN_USE_BY_DEVICES;
    if (!error)
        return TRUE;
    log_line(WINTUN_LOG_ERR, L"Failed to delete the driver (Code 0x%08X)", error);
    set_last_error(error);
    return FALSE;
}
