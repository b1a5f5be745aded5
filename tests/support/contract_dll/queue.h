/* Packets that a program sent, kept until a test takes them.
 *
 * Owns their memory and their order; must not know where they come from.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include "portable.h"

struct queue;

struct queue *queue_new(void);
void queue_free(struct queue *queue);

/* Keep a copy; false where the queue holds 64 MiB, or there is no memory. */
bool queue_put(struct queue *queue, const uint8_t *packet, uint32_t size);

/* Copy the oldest packet to `target` of `room` bytes and return its size. 0 where there was none for `milliseconds`,
 * or, with `*too_large`, where it has more bytes than that and stays. */
uint32_t queue_take(struct queue *queue, uint8_t *target, uint32_t room, uint32_t milliseconds, bool *too_large);

#endif
