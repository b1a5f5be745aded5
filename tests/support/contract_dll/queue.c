/* queue.h as a list. */
#include "queue.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 64 << 20 };

struct node {
    struct node *next;
    uint32_t size;
    uint8_t packet[];
};

struct queue {
    mutex lock;
    HANDLE filled; /* Set after every packet, and by a taker that leaves packets for the next one. */
    struct node *first, **last;
    size_t bytes;
};

struct queue *queue_new(void)
{
    struct queue *queue = calloc(1, sizeof *queue);
    if (!queue)
        return NULL;
    mutex_init(&queue->lock);
    queue->filled = event_new();
    queue->last = &queue->first;
    return queue;
}

void queue_free(struct queue *queue)
{
    while (queue->first) {
        struct node *node = queue->first;
        queue->first = node->next;
        free(node);
    }
    event_free(queue->filled);
    free(queue);
}

bool queue_put(struct queue *queue, const uint8_t *packet, uint32_t size)
{
    struct node *node = malloc(sizeof *node + size);
    if (!node)
        return false;
    node->next = NULL;
    node->size = size;
    memcpy(node->packet, packet, size);
    mutex_lock(&queue->lock);
    bool room = queue->bytes + size <= MAX_BYTES;
    if (room) {
        *queue->last = node;
        queue->last = &node->next;
        queue->bytes += size;
    }
    mutex_unlock(&queue->lock);
    if (room)
        event_set(queue->filled);
    else
        free(node);
    return room;
}

/* Remove and return the oldest packet if it has at most `room` bytes. */
static struct node *pop(struct queue *queue, uint32_t room, bool *too_large)
{
    mutex_lock(&queue->lock);
    struct node *node = queue->first;
    *too_large = node && node->size > room;
    if (*too_large)
        node = NULL;
    if (node) {
        queue->first = node->next;
        queue->bytes -= node->size;
        if (!queue->first)
            queue->last = &queue->first;
    }
    bool more = queue->first;
    mutex_unlock(&queue->lock);
    if (more)
        event_set(queue->filled);
    return node;
}

uint32_t queue_take(struct queue *queue, uint8_t *target, uint32_t room, uint32_t milliseconds, bool *too_large)
{
    uint64_t deadline = monotonic_milliseconds() + milliseconds;
    struct node *node;
    while (!(node = pop(queue, room, too_large)) && !*too_large) {
        uint64_t now = monotonic_milliseconds();
        if (now >= deadline)
            return 0;
        event_wait(queue->filled, (uint32_t)(deadline - now));
    }
    if (!node)
        return 0;
    uint32_t size = node->size;
    memcpy(target, node->packet, size);
    free(node);
    return size;
}
