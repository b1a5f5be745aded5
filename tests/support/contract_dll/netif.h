/* The interfaces of the system: those of adapters, and their neighbours.
 *
 * Owns names, GUIDs, LUIDs and lives; must not know of handles, nor what a session does with the driver it is given.
 */
#ifndef NETIF_H
#define NETIF_H

#include "driver.h"

enum { MAX_TEXT = 128 };

struct netif {
    struct netif *next;
    unsigned references; /* One of the list, one of each handle, of each session, of each caller. */
    bool removed;
    uint32_t kind;
    WCHAR name[MAX_TEXT], tunnel_type[MAX_TEXT];
    GUID guid;
    NET_LUID luid;
    struct driver *driver; /* Of the session that runs. */
    struct traffic traffic;
};

/* One lock for all. Functions that say so are called with it held; the others take it. */
void netifs_lock(void);
void netifs_unlock(void);

/* With the lock: the first interface, or the one of that name, or with that GUID; NULL where there is none. */
struct netif *netif_first(void);
struct netif *netif_find(const WCHAR *name);
struct netif *netif_find_guid(const GUID *guid);

/* With the lock: a new interface with a LUID of its own, and a random GUID where `guid` is NULL; its name is to be set
 * by netif_name. NULL without memory. */
struct netif *netif_add(const WCHAR *tunnel_type, uint32_t kind, const GUID *guid);

/* With the lock: give it the name as Wintun does, where need be at the cost of whoever has it. */
void netif_name(struct netif *netif, const WCHAR *name);

/* With the lock: take it out of the system, and end the traffic of its session. */
void netif_remove(struct netif *netif);
void netifs_remove_kind(uint32_t kind);

/* With the lock: one that uses it more. */
struct netif *netif_hold(struct netif *netif);
void netif_release(struct netif *netif);

/* Start its driver. An error, or 0. */
uint32_t netif_connect(struct netif *netif, uint32_t capacity);
void netif_disconnect(struct netif *netif);

#endif
