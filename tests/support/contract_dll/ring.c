/* ring.h: these functions neither wait nor publish. */
#include "ring.h"

#include <stdlib.h>

#include "contract.h"

_Static_assert(sizeof(struct ring) == 12, "the header of a ring is three words");

bool ring_capacity_is_valid(uint32_t capacity)
{
    return capacity >= WINTUN_MIN_RING_CAPACITY && capacity <= WINTUN_MAX_RING_CAPACITY && !(capacity & (capacity - 1));
}

struct ring *ring_new(uint32_t capacity)
{
    return calloc(1, sizeof(struct ring) + capacity + RING_TRAILING);
}

uint64_t record_length(uint32_t size)
{
    return ((uint64_t)size + RECORD_HEADER + 3) & ~(uint64_t)3;
}

uint32_t *record_size(struct ring *ring, uint32_t offset)
{
    return (uint32_t *)(void *)(ring->data + offset);
}

uint32_t ring_space(uint32_t head, uint32_t tail, uint32_t capacity)
{
    return (head - tail - RECORD_HEADER) & (capacity - 1);
}

ring_state ring_look(struct ring *ring, uint32_t head, uint32_t tail, uint32_t capacity, uint32_t *size)
{
    uint32_t content = (tail - head) & (capacity - 1);
    if (!content)
        return RING_EMPTY;
    if (content < RECORD_HEADER)
        return RING_CORRUPT;
    *size = *record_size(ring, head);
    return *size <= MAX_PACKET && record_length(*size) <= content ? RING_RECORD : RING_CORRUPT;
}

void ring_pass_settled(struct ring *ring, uint32_t *from, uint32_t to, uint32_t capacity)
{
    while (*from != to) {
        uint32_t size = *record_size(ring, *from);
        if (size & RECORD_OPEN)
            return;
        bool inside = record_length(size) <= ((to - *from) & (capacity - 1));
        *from = inside ? (*from + (uint32_t)record_length(size)) & (capacity - 1) : to;
    }
}
