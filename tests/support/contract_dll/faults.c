/* faults.h, and the exported functions that set and read faults. */
#include "faults.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contract.h"
#include "portable.h"

static const char *const VIOLATIONS[] = {
    [USE_AFTER_END] = "a session was used after its end",
    [END_INSIDE_CALL] = "a session was ended while a thread was inside of a call on it",
    [USE_AFTER_CLOSE] = "an adapter was used after it was closed",
    [WRONG_RELEASE] = "a packet was released that was not received, or was released before",
    [WRONG_SEND] = "a packet was sent that was not allocated, or was sent before",
    [OVERSIZED_PACKET] = "room for more than 65535 bytes was allocated",
};

/* Functions with a result: only these can fail. */
static const bool CAN_FAIL[CONTRACT_FUNCTIONS] = {
    [CONTRACT_CREATE_ADAPTER] = true,
    [CONTRACT_OPEN_ADAPTER] = true,
    [CONTRACT_GET_RUNNING_DRIVER_VERSION] = true,
    [CONTRACT_DELETE_DRIVER] = true,
    [CONTRACT_START_SESSION] = true,
    [CONTRACT_RECEIVE_PACKET] = true,
    [CONTRACT_ALLOCATE_SEND_PACKET] = true,
};

struct plan {
    uint32_t value, times;
};

static mutex lock = MUTEX_INIT; /* Protects the plans. */
static struct plan failures[CONTRACT_FUNCTIONS], delays[CONTRACT_FUNCTIONS];
static atomic_uint planned; /* The number of planned calls; usually none, which costs no lock. */

static atomic_uint delays_set; /* How often a delay was set. */

static _Atomic uint64_t counters[COUNTERS];
_Static_assert(sizeof(CONTRACT_COUNTERS) == sizeof counters, "each counter is told");

#ifdef __SANITIZE_ADDRESS__
static atomic_bool strict = true;
#else
static atomic_bool strict;
#endif

void count(counter which, int64_t by)
{
    atomic_fetch_add_explicit(&counters[which], (uint64_t)by, memory_order_relaxed);
}

void violation(counter which)
{
    count(which, 1);
    if (!atomic_load(&strict))
        return;
    fprintf(stderr, "contract: %s\n", VIOLATIONS[which]);
    fflush(stderr);
    abort();
}

/* Return the planned value for this call, or 0. */
static uint32_t use(struct plan *plan)
{
    if (!plan->times)
        return 0;
    plan->times--;
    atomic_fetch_sub(&planned, 1);
    return plan->value;
}

/* Sleep for `milliseconds`, or until another delay is set. */
static void sleep_unless_woken(uint32_t milliseconds)
{
    unsigned current = atomic_load(&delays_set);
    uint64_t deadline = monotonic_milliseconds() + milliseconds;
    count(SLEEPERS, 1);
    while (atomic_load(&delays_set) == current && monotonic_milliseconds() < deadline)
        sleep_milliseconds(1);
    count(SLEEPERS, -1);
}

uint32_t fault_of_call(uint32_t function)
{
    if (!atomic_load_explicit(&planned, memory_order_relaxed))
        return 0;
    mutex_lock(&lock);
    uint32_t delay = use(&delays[function]), error = use(&failures[function]);
    mutex_unlock(&lock);
    if (delay)
        sleep_unless_woken(delay);
    return error;
}

static void set(struct plan *plan, uint32_t value, uint32_t times)
{
    mutex_lock(&lock);
    atomic_fetch_add(&planned, times - plan->times);
    *plan = (struct plan){value, times};
    mutex_unlock(&lock);
}

BOOL WINAPI ContractFailCall(DWORD Function, DWORD Error, DWORD Times)
{
    if (Function >= CONTRACT_FUNCTIONS || !CAN_FAIL[Function])
        return FALSE;
    set(&failures[Function], Error, Times);
    return TRUE;
}

BOOL WINAPI ContractDelayCall(DWORD Function, DWORD Milliseconds, DWORD Times)
{
    if (Function >= CONTRACT_FUNCTIONS)
        return FALSE;
    set(&delays[Function], Milliseconds, Times);
    atomic_fetch_add(&delays_set, 1);
    return TRUE;
}

VOID WINAPI ContractCounters(CONTRACT_COUNTERS *Counters)
{
    uint64_t now[COUNTERS];
    for (int which = 0; which < COUNTERS; which++)
        now[which] = atomic_load(&counters[which]);
    memcpy(Counters, now, sizeof now);
}

VOID WINAPI ContractSetStrict(BOOL Strict)
{
    atomic_store(&strict, Strict != FALSE);
}

void faults_reset(void)
{
    for (int function = 0; function < CONTRACT_FUNCTIONS; function++) {
        set(&failures[function], 0, 0);
        set(&delays[function], 0, 0);
    }
    atomic_fetch_add(&delays_set, 1);
    for (int which = 0; which < ADAPTERS; which++)
        atomic_store(&counters[which], 0);
}
