/* Handles of adapters.
 *
 * Owns what a program holds of an interface, and finds out who uses a handle after it was closed.
 */
#ifndef ADAPTER_H
#define ADAPTER_H

#include "netif.h"

/* The interface of a handle, held for the caller until adapter_leave; NULL, told and counted, where it was closed. */
struct netif *adapter_enter(WINTUN_ADAPTER_HANDLE adapter);
void adapter_leave(struct netif *netif);

#endif
