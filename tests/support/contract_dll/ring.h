/* The ring: its layout, the arithmetic of offsets, and the check that each side makes of what the other wrote.
 *
 * Owns the memory that program and driver share; must not know which side uses it, nor of locks or events.
 */
#ifndef RING_H
#define RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { MAX_PACKET = 0xFFFF, RECORD_HEADER = 4, RING_TRAILING = 0x10000 };

#define RING_ENDED UINT32_MAX
#define RECORD_OPEN 0x80000000u /* In the size of a record: not released yet, or not sent yet. */

struct ring {
    _Atomic uint32_t head; /* Offset of the oldest record: moved by the consumer. */
    _Atomic uint32_t tail; /* Offset behind the newest record: moved by the producer. */
    _Atomic int32_t alertable; /* Whether the consumer wants to be woken. */
    uint8_t data[];
};

typedef enum { RING_EMPTY, RING_RECORD, RING_CORRUPT } ring_state;

bool ring_capacity_is_valid(uint32_t capacity);

/* A ring without records, or NULL without memory; freed by free(). */
struct ring *ring_new(uint32_t capacity);

/* Bytes that a packet of `size` bytes takes; of 64 bits, for nobody checks the size. */
uint64_t record_length(uint32_t size);

/* The size of the record at `offset`, whose owner may read and write it. */
uint32_t *record_size(struct ring *ring, uint32_t offset);

/* Bytes that a producer whose next record goes to `tail` may write. */
uint32_t ring_space(uint32_t head, uint32_t tail, uint32_t capacity);

/* What a consumer finds at `head`; the packet's size in `*size`, where there is a record. */
ring_state ring_look(struct ring *ring, uint32_t head, uint32_t tail, uint32_t capacity, uint32_t *size);

/* Move `*from` over the records that are no longer open, up to `to` and, whatever their sizes say, never past it. */
void ring_pass_settled(struct ring *ring, uint32_t *from, uint32_t to, uint32_t capacity);

#endif
