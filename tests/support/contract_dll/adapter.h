/* Handles of adapters.
 *
 * Owns the handles by which a program holds interfaces; detects use of a handle after it was closed.
 */
#ifndef ADAPTER_H
#define ADAPTER_H

#include "netif.h"

/* Return the interface of a handle, held until adapter_leave; NULL, logged and counted, if it was closed. */
struct netif *adapter_enter(WINTUN_ADAPTER_HANDLE adapter);
void adapter_leave(struct netif *netif);

#endif
