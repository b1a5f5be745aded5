/* The adapters that are UDP ports of this machine.
 *
 * Owns the settings of ContractSetNetwork and THREEPIPE_CONTRACT_UDP; must not know sessions or sockets.
 */
#ifndef NETWORK_H
#define NETWORK_H

#include "contract.h"
#include "portable.h"

struct network {
    uint16_t local, remote; /* Remote 0: no network. */
};

struct network network_of(const WCHAR *name);
void networks_reset(void);

/* Return true if two interface names are equal to Windows. */
bool same_name(const WCHAR *one, const WCHAR *other);

#endif
