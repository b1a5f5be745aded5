/* The ring: its layout, the arithmetic of offsets, and the checks of each side on data of the other.
 *
 * Owns the memory that program and driver share; must not know the side that uses it, or locks and events.
 */
#ifndef RING_H
#define RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { MAX_PACKET = 0xFFFF, RECORD_HEADER = 4, RING_TRAILING = 0x10000 };

#define RING_ENDED UINT32_MAX
#define RECORD_OPEN 0x80000000u /* A flag in the size of a record: not released yet, or not sent yet. */

struct ring {
    _Atomic uint32_t head; /* Offset of the oldest record; the consumer moves it. */
    _Atomic uint32_t tail; /* Offset after the newest record; the producer moves it. */
    _Atomic int32_t alertable; /* True while the consumer wants to be woken. */
    uint8_t data[];
};

typedef enum { RING_EMPTY, RING_RECORD, RING_CORRUPT } ring_state;

bool ring_capacity_is_valid(uint32_t capacity);

/* Make a ring without records; NULL without memory. Free it by free(). */
struct ring *ring_new(uint32_t capacity);

/* Return the bytes of ring for a packet of `size` bytes; 64 bits, as the size is not checked. */
uint64_t record_length(uint32_t size);

/* Return the size field of the record at `offset`; its owner may read and write it. */
uint32_t *record_size(struct ring *ring, uint32_t offset);

/* Return the bytes that a producer may write at `tail`. */
uint32_t ring_space(uint32_t head, uint32_t tail, uint32_t capacity);

/* Check the ring at `head` for a consumer; set `*size` to the packet's size if there is a record. */
ring_state ring_look(struct ring *ring, uint32_t head, uint32_t tail, uint32_t capacity, uint32_t *size);

/* Move `*from` over records that are no longer open, up to `to` and never past it, whatever their sizes. */
void ring_pass_settled(struct ring *ring, uint32_t *from, uint32_t to, uint32_t capacity);

#endif
