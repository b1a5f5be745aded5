/* The driver's side: it fills one ring of a session, empties the other, and ends both.
 *
 * Owns the rings, their events and its threads; must not know handles, or the packets that the program holds.
 */
#ifndef DRIVER_H
#define DRIVER_H

#include "network.h"
#include "portable.h"
#include "queue.h"
#include "ring.h"

/* State of an interface over all its sessions. */
struct traffic {
    _Atomic uint64_t received_packets, received_bytes, received_dropped;
    _Atomic uint64_t sent_packets, sent_bytes, sent_discarded;
    _Atomic uint64_t network_errors;
    atomic_bool discard;
    struct queue *queue;
};

struct driver {
    uint32_t capacity;
    struct ring *inbound, *outbound; /* To the program, and from it. */
    HANDLE readable, moved;          /* The driver sets the first event, the program the second. */
    struct traffic *traffic;

    mutex giving;  /* Lock of the producer of `inbound`. */
    uint32_t tail; /* The offset of its next record. */
    bool ended;    /* No more packets may be put in. */
    uint32_t lost_wakeups;

    mutex taking;  /* Lock of the consumer of `outbound`. */
    uint32_t head; /* The offset of its next record. */
    bool stalled, gave_up;
    thread *taker;

    udp_socket socket;
    struct network network;
    thread *listener;
    atomic_bool stopping;
};

/* Connect; NULL with a code in `*error`. */
struct driver *driver_start(uint32_t capacity, struct traffic *traffic, struct network network, uint32_t *error);

/* Disconnect and free everything; no thread may use the rings any more. */
void driver_stop(struct driver *driver);

/* Put a packet into the ring for the program; false, and counted, without room. */
bool driver_give(struct driver *driver, const uint8_t *packet, uint32_t size);

/* Call this after a change of the program's ring, or of its target. */
void driver_wake(struct driver *driver);

/* Take all packets sent so far, unless blocked; then the counts cover every packet that any thread has seen. */
void driver_catch_up(struct driver *driver);

/* Return true if no packet waits that could be taken. */
bool driver_is_idle(struct driver *driver);

/* Cause a CONTRACT_FAULT_...; false for an unknown one. */
bool driver_fault(struct driver *driver, uint32_t fault, uint32_t value);

#endif
