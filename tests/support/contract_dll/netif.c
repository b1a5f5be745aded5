/* netif.h as a list with one lock. */
#include "netif.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

enum { IF_TYPE_PROPERTY_VIRTUAL = 53, FIRST_INDEX = 32768, MAX_SUFFIX = 16 };

static mutex lock = MUTEX_INIT;
static struct netif *first;
static uint32_t next_index = FIRST_INDEX;

void netifs_lock(void)
{
    mutex_lock(&lock);
}

void netifs_unlock(void)
{
    mutex_unlock(&lock);
}

struct netif *netif_first(void)
{
    return first;
}

struct netif *netif_find(const WCHAR *name)
{
    struct netif *netif = first;
    while (netif && !same_name(netif->name, name))
        netif = netif->next;
    return netif;
}

struct netif *netif_find_guid(const GUID *guid)
{
    struct netif *netif = first;
    while (netif && memcmp(&netif->guid, guid, sizeof *guid))
        netif = netif->next;
    return netif;
}

/* A random GUID: version 4, variant 1. */
static GUID random_guid(void)
{
    GUID guid;
    random_bytes(&guid, sizeof guid);
    guid.Data3 = (uint16_t)((guid.Data3 & 0x0FFF) | 0x4000);
    guid.Data4[0] = (uint8_t)((guid.Data4[0] & 0x3F) | 0x80);
    return guid;
}

struct netif *netif_add(const WCHAR *tunnel_type, uint32_t kind, const GUID *guid)
{
    struct netif *netif = calloc(1, sizeof *netif);
    if (!netif || !(netif->traffic.queue = queue_new())) {
        free(netif);
        return NULL;
    }
    netif->references = 1;
    netif->kind = kind;
    netif->guid = guid ? *guid : random_guid();
    netif->luid.Info.NetLuidIndex = next_index++;
    netif->luid.Info.IfType = IF_TYPE_PROPERTY_VIRTUAL;
    wcsncpy(netif->tunnel_type, tunnel_type, MAX_TEXT - 1);
    netif->next = first;
    first = netif;
    return netif;
}

/* Set the name of `netif` to the first of "NAME 1", "NAME 2" and so on that is free. */
static void name_with_number(struct netif *netif, const WCHAR *name)
{
    WCHAR proposal[MAX_TEXT];
    unsigned number = 0;
    do
        swprintf(proposal, MAX_TEXT, L"%.*ls %u", MAX_TEXT - MAX_SUFFIX, name, ++number);
    while (netif_find(proposal));
    wcscpy(netif->name, proposal);
}

void netif_name(struct netif *netif, const WCHAR *name)
{
    struct netif *other = netif_find(name);
    if (other && other->kind == CONTRACT_FIXED) {
        name_with_number(netif, name);
        return;
    }
    if (other)
        name_with_number(other, name);
    wcsncpy(netif->name, name, MAX_TEXT - 1);
}

void netif_remove(struct netif *netif)
{
    struct netif **link = &first;
    if (netif->removed)
        return;
    while (*link != netif)
        link = &(*link)->next;
    *link = netif->next;
    netif->removed = true;
    if (netif->driver)
        driver_fault(netif->driver, CONTRACT_FAULT_TERMINATE, 0);
    netif_release(netif);
}

void netifs_remove_kind(uint32_t kind)
{
    for (struct netif *netif = first, *next; netif; netif = next) {
        next = netif->next;
        if (netif->kind == kind)
            netif_remove(netif);
    }
}

struct netif *netif_hold(struct netif *netif)
{
    netif->references++;
    return netif;
}

void netif_release(struct netif *netif)
{
    if (--netif->references)
        return;
    queue_free(netif->traffic.queue);
    free(netif);
}

uint32_t netif_connect(struct netif *netif, uint32_t capacity)
{
    uint32_t error = 0;
    netifs_lock();
    if (netif->removed)
        error = ERROR_FILE_NOT_FOUND;
    else if (!ring_capacity_is_valid(capacity))
        error = ERROR_INVALID_PARAMETER;
    else if (netif->driver)
        error = ERROR_ALREADY_INITIALIZED;
    else if ((netif->driver = driver_start(capacity, &netif->traffic, network_of(netif->name), &error))) {
        error = 0;
        netif_hold(netif);
    }
    netifs_unlock();
    return error;
}

void netif_disconnect(struct netif *netif)
{
    netifs_lock();
    struct driver *driver = netif->driver;
    netif->driver = NULL; /* From now on no other thread has it. */
    netifs_unlock();
    driver_stop(driver);
    netifs_lock();
    netif_release(netif);
    netifs_unlock();
}
