/* The side of the driver: it fills one ring of a session, empties the other, and ends both.
 *
 * Owns the rings, their events and its threads; must not know of handles, nor of what the program holds of a ring.
 */
#ifndef DRIVER_H
#define DRIVER_H

#include "network.h"
#include "portable.h"
#include "queue.h"
#include "ring.h"

/* What an interface has for as long as there is one, in all its sessions. */
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
    HANDLE readable, moved;          /* What the driver sets for the one, and the program for the other. */
    struct traffic *traffic;

    mutex giving;  /* Of the producer of `inbound`. */
    uint32_t tail; /* Where its next record goes. */
    bool ended;    /* Nothing more is to be put in. */
    uint32_t lost_wakeups;

    mutex taking;  /* Of the consumer of `outbound`. */
    uint32_t head; /* Its next record. */
    bool stalled, gave_up;
    thread *taker;

    udp_socket socket;
    struct network network;
    thread *listener;
    atomic_bool stopping;
};

/* Connect: NULL with a code in `*error`. */
struct driver *driver_start(uint32_t capacity, struct traffic *traffic, struct network network, uint32_t *error);

/* Disconnect and free it all; nobody may use the rings any more. */
void driver_stop(struct driver *driver);

/* Put a packet into the ring for the program; false, and counted, without room. */
bool driver_give(struct driver *driver, const uint8_t *packet, uint32_t size);

/* To be called when something of the program's ring, or of where it goes, has changed. */
void driver_wake(struct driver *driver);

/* Take what has been sent so far, unless something is in the way; then all that anybody may have seen is counted. */
void driver_catch_up(struct driver *driver);

/* Whether nothing waits that could be taken. */
bool driver_is_idle(struct driver *driver);

/* Do a CONTRACT_FAULT_...; false where there is no such. */
bool driver_fault(struct driver *driver, uint32_t fault, uint32_t value);

#endif
