/* The records of a ring that the program holds, and a check that a returned packet is one of them.
 *
 * Owns a bit for each place where a record can begin; must not know the direction of the ring.
 */
#ifndef CLAIMS_H
#define CLAIMS_H

#include <stdlib.h>

#include "ring.h"

struct claims {
    uint8_t *bits;
    uint32_t count;
};

static inline bool claims_init(struct claims *claims, uint32_t capacity)
{
    return (claims->bits = calloc(capacity / RECORD_HEADER / 8, 1));
}

static inline void claims_free(struct claims *claims)
{
    free(claims->bits);
}

static inline void claims_add(struct claims *claims, uint32_t offset)
{
    claims->bits[offset / RECORD_HEADER / 8] |= (uint8_t)(1 << offset / RECORD_HEADER % 8);
    claims->count++;
}

/* Take a packet of `ring` back; set `*offset` to its record. Return false if the program does not hold it. */
static inline bool claims_settle(
    struct claims *claims, const struct ring *ring, uint32_t capacity, const uint8_t *packet, uint32_t *offset)
{
    uintptr_t distance = (uintptr_t)packet - (uintptr_t)ring->data - RECORD_HEADER;
    if (distance >= capacity || distance % RECORD_HEADER)
        return false;
    uint8_t *bits = &claims->bits[distance / RECORD_HEADER / 8], bit = (uint8_t)(1 << distance / RECORD_HEADER % 8);
    if (!(*bits & bit))
        return false;
    *bits &= (uint8_t)~bit;
    claims->count--;
    *offset = (uint32_t)distance;
    return true;
}

#endif
