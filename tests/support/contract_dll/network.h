/* Which adapters are UDP ports of this machine.
 *
 * Owns what ContractSetNetwork and THREEPIPE_CONTRACT_UDP said; must not know of sessions or sockets.
 */
#ifndef NETWORK_H
#define NETWORK_H

#include "contract.h"
#include "portable.h"

struct network {
    uint16_t local, remote; /* Remote 0: there is none. */
};

struct network network_of(const WCHAR *name);
void networks_reset(void);

/* Whether two names of interfaces are the same to Windows. */
bool same_name(const WCHAR *one, const WCHAR *other);

#endif
