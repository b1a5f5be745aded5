/* What Windows and Linux have in common, under one name: locks, threads, events, time, the last error, UDP.
 *
 * Owns every difference between the two systems but the types of contract.h; must not know of adapters or rings.
 */
#ifndef PORTABLE_H
#define PORTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "contract.h"

#ifdef _WIN32
typedef RTL_SRWLOCK mutex;
#define MUTEX_INIT RTL_SRWLOCK_INIT
typedef uintptr_t udp_socket; /* SOCKET, without the headers it takes. */
#else
#include <pthread.h>
typedef pthread_mutex_t mutex;
#define MUTEX_INIT PTHREAD_MUTEX_INITIALIZER
typedef int udp_socket;
#endif

void mutex_init(mutex *lock);
void mutex_lock(mutex *lock);
void mutex_unlock(mutex *lock);

typedef struct thread thread;

/* Start `run(argument)`; NULL where there can be no more threads. */
thread *thread_start(void (*run)(void *), void *argument);
void thread_join(thread *started);
void thread_yield(void);
void sleep_milliseconds(uint32_t milliseconds);

/* Auto-reset events: one set wakes one waiter. An eventfd on Linux. INFINITE_WAIT waits for ever. */
#define INFINITE_WAIT UINT32_MAX
HANDLE event_new(void);
void event_set(HANDLE event);
bool event_wait(HANDLE event, uint32_t milliseconds);
void event_free(HANDLE event);

/* Of a clock that only goes forward. */
uint64_t monotonic_microseconds(void);
uint64_t monotonic_milliseconds(void);

/* Now, as a FILETIME: 100 ns since 1601. */
uint64_t filetime_now(void);

void random_bytes(void *target, size_t size);

/* What GetLastError gives on Windows and errno on Linux. */
void set_last_error(uint32_t error);

/* The environment variable `name`, or an empty text, into `value` of `size` bytes. */
void get_environment(const char *name, char *value, size_t size);

#define NO_SOCKET ((udp_socket)-1)

/* A UDP socket on 127.0.0.1:`*port`, which is set to the one chosen for 0. NO_SOCKET with Windows' code in `*error`. */
udp_socket udp_open(uint16_t *port, uint32_t *error);
bool udp_send(udp_socket from, uint16_t port, const void *data, size_t size);

/* The size of the next datagram, which is waited for; negative where there is none, but only an error. */
int udp_receive(udp_socket socket, void *data, size_t size);
void udp_close(udp_socket socket);

#endif
