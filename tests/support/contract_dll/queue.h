/* Packets that a program sent, kept until a test takes them.
 *
 * Owns their memory and their order; must not know their source.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include "portable.h"

struct queue;

struct queue *queue_new(void);
void queue_free(struct queue *queue);

/* Keep a copy; false if the queue holds 64 MiB, or without memory. */
bool queue_put(struct queue *queue, const uint8_t *packet, uint32_t size);

/* Copy the oldest packet to `target` of `room` bytes and return its size. 0 if there was none for `milliseconds`, or,
 * with `*too_large`, if it is larger and stays. */
uint32_t queue_take(struct queue *queue, uint8_t *target, uint32_t room, uint32_t milliseconds, bool *too_large);

#endif
