/* The program's side of a session.
 *
 * Owns the record of packets that the program holds; detects wrong use of them and of the session. Must not know
 * interfaces or threads.
 */
#ifndef SESSION_H
#define SESSION_H

#include "claims.h"
#include "netif.h"

/* Never freed: no other session gets its address, so late use is detected. The rings are freed. */
struct session {
    struct session *next;
    struct netif *netif;
    struct driver *driver;
    uint32_t capacity;
    atomic_bool ended;
    atomic_uint inside; /* Threads in a call. */

    mutex receiving;
    uint32_t head;     /* The next record to receive. */
    uint32_t released; /* The oldest record that is not released; the driver sees this. */
    struct claims received;

    mutex sending;
    uint32_t tail;      /* The offset of the next record. */
    uint32_t published; /* The oldest record that is not sent; the driver sees this. */
    struct claims allocated;
};

/* Call these before and after every use of a session. False, logged and counted, if it was ended. */
bool session_enter(struct session *session);
void session_leave(struct session *session);

#endif
