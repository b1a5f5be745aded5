/* What is to go wrong on demand, and what callers did wrong.
 *
 * Owns the counters, and the functions that shall fail or be slow; must not know of adapters or rings.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    USE_AFTER_END,
    END_INSIDE_CALL,
    USE_AFTER_CLOSE,
    WRONG_RELEASE,
    WRONG_SEND,
    OVERSIZED_PACKET,
    /* Up to here they are violations; those below are allowed, and only counted. */
    RELEASED_OUT_OF_ORDER,
    SENT_OUT_OF_ORDER,
    UNRELEASED_AT_END,
    UNSENT_AT_END,
    LOST_WAKEUPS,
    ADAPTERS,
    SESSIONS,
    SLEEPERS,
    COUNTERS
} counter;

void count(counter which, int64_t by);

/* Count what the caller did wrong, and abort where that is wanted. */
void violation(counter which);

/* To be called first by every function: sleeps where it shall be slow, and returns the error to fail with, or 0. */
uint32_t fault_of_call(uint32_t function);

/* Nothing is to go wrong any more, and nothing did; what is open stays counted. */
void faults_reset(void);

#endif
