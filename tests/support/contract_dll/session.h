/* A session as the program has it.
 *
 * Owns which packets the program holds, and finds out who uses them, or the session, as he must not. Must not know of
 * interfaces or threads.
 */
#ifndef SESSION_H
#define SESSION_H

#include "claims.h"
#include "netif.h"

/* Never freed, so that no other session has its address and a late user is found out; the rings are. */
struct session {
    struct session *next;
    struct netif *netif;
    struct driver *driver;
    uint32_t capacity;
    atomic_bool ended;
    atomic_uint inside; /* Threads that are in a call. */

    mutex receiving;
    uint32_t head;     /* The record to be received next. */
    uint32_t released; /* The oldest that is not released: what the driver is told. */
    struct claims received;

    mutex sending;
    uint32_t tail;      /* Where the next record goes. */
    uint32_t published; /* The oldest that is not sent: what the driver is told. */
    struct claims allocated;
};

/* To be called before and after everything that is done with a session. False, told and counted, where it was ended. */
bool session_enter(struct session *session);
void session_leave(struct session *session);

#endif
