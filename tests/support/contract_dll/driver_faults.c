/* driver.h: faults of a session. */
#include "driver.h"

static bool stall(struct driver *driver, uint32_t value)
{
    mutex_lock(&driver->taking);
    driver->stalled = value;
    mutex_unlock(&driver->taking);
    driver_wake(driver);
    return true;
}

static bool lose_wakeups(struct driver *driver, uint32_t value)
{
    mutex_lock(&driver->giving);
    driver->lost_wakeups = value;
    mutex_unlock(&driver->giving);
    return true;
}

static bool corrupt_size(struct driver *driver, uint32_t value)
{
    const uint32_t content = 8;
    struct ring *ring = driver->inbound;
    mutex_lock(&driver->giving);
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    bool room = !driver->ended && content <= ring_space(head, driver->tail, driver->capacity);
    if (room) {
        *record_size(ring, driver->tail) = value;
        driver->tail = (driver->tail + content) & (driver->capacity - 1);
        atomic_store_explicit(&ring->tail, driver->tail, memory_order_release);
    }
    mutex_unlock(&driver->giving);
    event_set(driver->readable);
    return room;
}

/* No packet can follow an impossible tail or an end. */
static bool set_tail(struct driver *driver, uint32_t value)
{
    mutex_lock(&driver->giving);
    driver->ended = true;
    atomic_store_explicit(&driver->inbound->tail, value, memory_order_release);
    mutex_unlock(&driver->giving);
    event_set(driver->readable);
    return true;
}

static bool set_head(struct driver *driver, uint32_t value)
{
    mutex_lock(&driver->taking);
    driver->gave_up = true;
    atomic_store_explicit(&driver->outbound->head, value, memory_order_release);
    mutex_unlock(&driver->taking);
    return true;
}

static bool terminate(struct driver *driver, uint32_t value)
{
    (void)value;
    return set_head(driver, RING_ENDED) && set_tail(driver, RING_ENDED);
}

static bool (*const FAULTS[])(struct driver *, uint32_t) = {
    [CONTRACT_FAULT_STALL] = stall,
    [CONTRACT_FAULT_LOST_WAKEUPS] = lose_wakeups,
    [CONTRACT_FAULT_CORRUPT_SIZE] = corrupt_size,
    [CONTRACT_FAULT_CORRUPT_TAIL] = set_tail,
    [CONTRACT_FAULT_CORRUPT_HEAD] = set_head,
    [CONTRACT_FAULT_TERMINATE] = terminate,
};

bool driver_fault(struct driver *driver, uint32_t fault, uint32_t value)
{
    return fault < sizeof FAULTS / sizeof *FAULTS && FAULTS[fault](driver, value);
}
