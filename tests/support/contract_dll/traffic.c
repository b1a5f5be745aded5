/* The control functions for the other side of an adapter: its packets, and faults of its driver. */
#include "adapter.h"
#include "faults.h"

/* Call `use(driver, argument)` with the driver of the running session; false without one. */
static bool with_driver(WINTUN_ADAPTER_HANDLE adapter, void (*use)(struct driver *, void *), void *argument)
{
    struct netif *netif = adapter_enter(adapter);
    if (!netif)
        return false;
    netifs_lock(); /* Held during the use: WintunEndSession removes the driver. */
    bool runs = netif->driver;
    if (runs)
        use(netif->driver, argument);
    netifs_unlock();
    adapter_leave(netif);
    return runs;
}

struct gift {
    const uint8_t *packet;
    uint32_t size, count, given;
};

static void give(struct driver *driver, void *argument)
{
    struct gift *gift = argument;
    while (gift->given < gift->count && driver_give(driver, gift->packet, gift->size))
        gift->given++;
}

static void count_dropped(WINTUN_ADAPTER_HANDLE adapter)
{
    struct netif *netif = adapter_enter(adapter);
    if (!netif)
        return;
    atomic_fetch_add(&netif->traffic.received_dropped, 1);
    adapter_leave(netif);
}

DWORD WINAPI ContractInjectMany(WINTUN_ADAPTER_HANDLE Adapter, const BYTE *Packet, DWORD Size, DWORD Count)
{
    struct gift gift = {Packet, Size, Count, 0};
    if (!with_driver(Adapter, give, &gift))
        count_dropped(Adapter);
    return gift.given;
}

BOOL WINAPI ContractInject(WINTUN_ADAPTER_HANDLE Adapter, const BYTE *Packet, DWORD Size)
{
    return ContractInjectMany(Adapter, Packet, Size, 1) == 1;
}

static void wake(struct driver *driver, void *argument)
{
    (void)argument;
    driver_wake(driver);
}

DWORD WINAPI ContractTake(WINTUN_ADAPTER_HANDLE Adapter, BYTE *Packet, DWORD Size, DWORD Milliseconds)
{
    bool too_large;
    struct netif *netif = adapter_enter(Adapter);
    if (!netif)
        return 0;
    uint32_t size = queue_take(netif->traffic.queue, Packet, Size, Milliseconds, &too_large);
    adapter_leave(netif);
    if (size)
        with_driver(Adapter, wake, NULL); /* It may have waited for room in the queue. */
    else
        set_last_error(too_large ? ERROR_BUFFER_OVERFLOW : ERROR_NO_MORE_ITEMS);
    return size;
}

static void is_idle(struct driver *driver, void *idle)
{
    *(bool *)idle = driver_is_idle(driver);
}

BOOL WINAPI ContractSettle(WINTUN_ADAPTER_HANDLE Adapter, DWORD Milliseconds)
{
    uint64_t deadline = monotonic_milliseconds() + Milliseconds;
    bool idle = false;
    while (with_driver(Adapter, is_idle, &idle) && !idle) {
        if (monotonic_milliseconds() >= deadline)
            return FALSE;
        thread_yield();
    }
    return TRUE;
}

VOID WINAPI ContractSetDiscard(WINTUN_ADAPTER_HANDLE Adapter, BOOL Discard)
{
    struct netif *netif = adapter_enter(Adapter);
    if (!netif)
        return;
    atomic_store(&netif->traffic.discard, Discard != FALSE);
    adapter_leave(netif);
}

static void port(struct driver *driver, void *number)
{
    *(uint32_t *)number = driver->network.remote ? driver->network.local : 0;
}

DWORD WINAPI ContractGetNetworkPort(WINTUN_ADAPTER_HANDLE Adapter)
{
    uint32_t number = 0;
    with_driver(Adapter, port, &number);
    return number;
}

struct fault {
    uint32_t fault, value;
    bool done;
};

static void do_fault(struct driver *driver, void *argument)
{
    struct fault *fault = argument;
    fault->done = driver_fault(driver, fault->fault, fault->value);
}

/* The adapter is removed, and the traffic of its session ends. */
static BOOL terminate(WINTUN_ADAPTER_HANDLE adapter)
{
    struct netif *netif = adapter_enter(adapter);
    if (!netif)
        return FALSE;
    netifs_lock();
    netif_remove(netif);
    netifs_unlock();
    adapter_leave(netif);
    return TRUE;
}

BOOL WINAPI ContractSetFault(WINTUN_ADAPTER_HANDLE Adapter, DWORD Fault, DWORD Value)
{
    struct fault fault = {Fault, Value, false};
    if (Fault == CONTRACT_FAULT_TERMINATE)
        return terminate(Adapter);
    if (!with_driver(Adapter, do_fault, &fault))
        set_last_error(ERROR_NOT_FOUND);
    return fault.done;
}
