/* Failures on demand, and violations by callers.
 *
 * Owns the counters, and the plans of functions that fail or are slow; must not know adapters or rings.
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
    /* The counters above are violations; those below are allowed uses. */
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

/* Count a violation by the caller, and abort in strict mode. */
void violation(counter which);

/* Every function calls this first: sleep if the plan says so, and return the error to fail with, or 0. */
uint32_t fault_of_call(uint32_t function);

/* Reset plans and violations; open handles stay counted. */
void faults_reset(void);

#endif
