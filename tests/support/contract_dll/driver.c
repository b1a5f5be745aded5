/* driver.h: start and stop, and both directions. Faults are in driver_faults.c. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

#include "faults.h"

enum { SPIN_MICROSECONDS = 100 };

static void add(_Atomic uint64_t *counted, uint64_t by)
{
    atomic_fetch_add_explicit(counted, by, memory_order_relaxed);
}

bool driver_give(struct driver *driver, const uint8_t *packet, uint32_t size)
{
    struct traffic *traffic = driver->traffic;
    struct ring *ring = driver->inbound;
    bool lost = false;
    mutex_lock(&driver->giving);
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire), tail = driver->tail;
    bool room = !driver->ended && head < driver->capacity && size <= MAX_PACKET &&
                record_length(size) <= ring_space(head, tail, driver->capacity);
    if (room) {
        uint32_t *record = record_size(ring, tail);
        *record = size;
        memcpy(record + 1, packet, size);
        driver->tail = (tail + (uint32_t)record_length(size)) & (driver->capacity - 1);
        atomic_store_explicit(&ring->tail, driver->tail, memory_order_release);
        if ((lost = driver->lost_wakeups))
            driver->lost_wakeups--;
        add(&traffic->received_packets, 1);
        add(&traffic->received_bytes, size);
    } else { /* The newest packet is dropped. */
        add(&traffic->received_dropped, 1);
    }
    mutex_unlock(&driver->giving);
    if (lost)
        count(LOST_WAKEUPS, 1);
    else if (room)
        event_set(driver->readable); /* Always: a program need not announce that it waits. */
    return room;
}

/* Check a packet as the driver does: version and size only; the system checks lengths and checksums. */
static bool is_ip(const uint8_t *packet, uint32_t size)
{
    return (size >= 20 && packet[0] >> 4 == 4) || (size >= 40 && packet[0] >> 4 == 6);
}

/* Pass a packet on; false if it must stay for now. */
static bool pass_on(struct driver *driver, const uint8_t *packet, uint32_t size)
{
    struct traffic *traffic = driver->traffic;
    if (!is_ip(packet, size)) {
        add(&traffic->sent_discarded, 1);
        return true;
    }
    if (driver->network.remote) {
        if (!udp_send(driver->socket, driver->network.remote, packet, size))
            add(&traffic->network_errors, 1);
    } else if (!atomic_load(&traffic->discard) && !queue_put(traffic->queue, packet, size)) {
        return false;
    }
    add(&traffic->sent_packets, 1);
    add(&traffic->sent_bytes, size);
    return true;
}

/* Take one packet of the program; false if none can be taken now. */
static bool take(struct driver *driver)
{
    struct ring *ring = driver->outbound;
    if (driver->stalled || driver->gave_up)
        return false;
    uint32_t size = 0, tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    ring_state state = RING_CORRUPT;
    if (tail < driver->capacity)
        state = ring_look(ring, driver->head, tail, driver->capacity, &size);
    if (state == RING_CORRUPT) { /* This direction is stopped until the next session. */
        driver->gave_up = true;
        atomic_store_explicit(&ring->head, RING_ENDED, memory_order_release);
        return false;
    }
    if (state == RING_EMPTY || !pass_on(driver, (uint8_t *)(record_size(ring, driver->head) + 1), size))
        return false;
    driver->head = (driver->head + (uint32_t)record_length(size)) & (driver->capacity - 1);
    atomic_store_explicit(&ring->head, driver->head, memory_order_release);
    return true;
}

static bool take_locked(struct driver *driver)
{
    mutex_lock(&driver->taking);
    bool taken = take(driver);
    mutex_unlock(&driver->taking);
    return taken;
}

/* Spin for a while before waiting, as the driver does: a wake-up costs more. */
static bool take_soon(struct driver *driver)
{
    uint64_t deadline = monotonic_microseconds() + SPIN_MICROSECONDS;
    bool taken;
    while (!(taken = take_locked(driver)) && monotonic_microseconds() < deadline)
        thread_yield();
    return taken;
}

static void run_taker(void *argument)
{
    struct driver *driver = argument;
    _Atomic int32_t *alertable = &driver->outbound->alertable;
    while (!atomic_load(&driver->stopping)) {
        if (take_soon(driver))
            continue;
        /* The program stores its tail and then reads this flag; here the order is reversed. Without a full barrier
         * between the two on both sides, each could miss the store of the other. */
        atomic_store_explicit(alertable, 1, memory_order_relaxed);
        atomic_thread_fence(memory_order_seq_cst);
        if (!take_locked(driver))
            event_wait(driver->moved, INFINITE_WAIT);
        atomic_store_explicit(alertable, 0, memory_order_relaxed);
    }
}

static void run_listener(void *argument)
{
    struct driver *driver = argument;
    uint8_t packet[MAX_PACKET];
    while (!atomic_load(&driver->stopping)) {
        int size = udp_receive(driver->socket, packet, sizeof packet);
        if (size > 0)
            driver_give(driver, packet, (uint32_t)size);
        else if (size < 0) /* For example of an unused port: Windows reports it to the next receive. */
            add(&driver->traffic->network_errors, 1);
    }
}

static void free_driver(struct driver *driver)
{
    if (driver->socket != NO_SOCKET)
        udp_close(driver->socket);
    if (driver->readable)
        event_free(driver->readable);
    if (driver->moved)
        event_free(driver->moved);
    free(driver->inbound);
    free(driver->outbound);
    free(driver);
}

struct driver *driver_start(uint32_t capacity, struct traffic *traffic, struct network network, uint32_t *error)
{
    struct driver *driver = calloc(1, sizeof *driver);
    *error = ERROR_NOT_ENOUGH_MEMORY;
    if (!driver)
        return NULL;
    driver->capacity = capacity;
    driver->traffic = traffic;
    driver->network = network;
    driver->socket = NO_SOCKET;
    mutex_init(&driver->giving);
    mutex_init(&driver->taking);
    driver->inbound = ring_new(capacity);
    driver->outbound = ring_new(capacity);
    driver->readable = event_new();
    driver->moved = event_new();
    bool complete = driver->inbound && driver->outbound && driver->readable && driver->moved;
    if (complete && network.remote)
        complete = (driver->socket = udp_open(&driver->network.local, error)) != NO_SOCKET;
    if (complete)
        complete = (driver->taker = thread_start(run_taker, driver));
    if (complete && network.remote)
        complete = (driver->listener = thread_start(run_listener, driver));
    if (complete)
        return driver;
    driver_stop(driver);
    return NULL;
}

void driver_stop(struct driver *driver)
{
    atomic_store(&driver->stopping, true);
    if (driver->taker) {
        event_set(driver->moved);
        thread_join(driver->taker);
    }
    if (driver->listener) {
        udp_send(driver->socket, driver->network.local, "", 0); /* Not a packet: it only wakes the thread. */
        thread_join(driver->listener);
    }
    free_driver(driver);
}

void driver_wake(struct driver *driver)
{
    event_set(driver->moved);
}

void driver_catch_up(struct driver *driver)
{
    mutex_lock(&driver->giving);
    mutex_unlock(&driver->giving); /* Any thread that was giving has counted its packet. */
    mutex_lock(&driver->taking);
    uint32_t newest = atomic_load_explicit(&driver->outbound->tail, memory_order_acquire);
    while (driver->head != newest && take(driver))
        ;
    mutex_unlock(&driver->taking);
}

bool driver_is_idle(struct driver *driver)
{
    mutex_lock(&driver->taking);
    bool idle = driver->gave_up || driver->head == atomic_load_explicit(&driver->outbound->tail, memory_order_acquire);
    mutex_unlock(&driver->taking);
    return idle;
}
