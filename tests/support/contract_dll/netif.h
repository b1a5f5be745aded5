/* The interfaces of the system: adapters and their neighbours.
 *
 * Owns names, GUIDs, LUIDs and lifetimes; must not know handles, or the use that a session makes of its driver.
 */
#ifndef NETIF_H
#define NETIF_H

#include "driver.h"

enum { MAX_TEXT = 128 };

struct netif {
    struct netif *next;
    unsigned references; /* One for the list, each handle, each session and each caller. */
    bool removed;
    uint32_t kind;
    WCHAR name[MAX_TEXT], tunnel_type[MAX_TEXT];
    GUID guid;
    NET_LUID luid;
    struct driver *driver; /* The driver of the running session. */
    struct traffic traffic;
};

/* One lock for all. Functions marked "with the lock" are called with it held; the others take it. */
void netifs_lock(void);
void netifs_unlock(void);

/* With the lock: return the first interface, or the one with the name or the GUID; NULL if there is none. */
struct netif *netif_first(void);
struct netif *netif_find(const WCHAR *name);
struct netif *netif_find_guid(const GUID *guid);

/* With the lock: return a new interface with its own LUID, and a random GUID if `guid` is NULL; set its name by
 * netif_name. NULL without memory. */
struct netif *netif_add(const WCHAR *tunnel_type, uint32_t kind, const GUID *guid);

/* With the lock: set its name as Wintun does; another interface with the name may be renamed. */
void netif_name(struct netif *netif, const WCHAR *name);

/* With the lock: remove it from the system, and end the traffic of its session. */
void netif_remove(struct netif *netif);
void netifs_remove_kind(uint32_t kind);

/* With the lock: add a reference. */
struct netif *netif_hold(struct netif *netif);
void netif_release(struct netif *netif);

/* Start its driver; return an error or 0. */
uint32_t netif_connect(struct netif *netif, uint32_t capacity);
void netif_disconnect(struct netif *netif);

#endif
