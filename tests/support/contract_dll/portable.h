/* One interface to Windows and Linux: locks, threads, events, time, the last error, UDP.
 *
 * Owns every difference between the two systems except the types of contract.h; must not know adapters or rings.
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
typedef uintptr_t udp_socket; /* SOCKET, without its headers. */
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

/* Start `run(argument)`; NULL if no thread can be made. */
thread *thread_start(void (*run)(void *), void *argument);
void thread_join(thread *started);
void thread_yield(void);
void sleep_milliseconds(uint32_t milliseconds);

/* Auto-reset events: one set wakes one waiter. An eventfd on Linux. INFINITE_WAIT has no timeout. */
#define INFINITE_WAIT UINT32_MAX
HANDLE event_new(void);
void event_set(HANDLE event);
bool event_wait(HANDLE event, uint32_t milliseconds);
void event_free(HANDLE event);

/* Read a monotonic clock. */
uint64_t monotonic_microseconds(void);
uint64_t monotonic_milliseconds(void);

/* Return the time as a FILETIME: 100 ns since 1601. */
uint64_t filetime_now(void);

void random_bytes(void *target, size_t size);

/* The last error: GetLastError on Windows, errno on Linux. */
void set_last_error(uint32_t error);

/* Copy the environment variable `name`, or an empty text, to `value` of `size` bytes. */
void get_environment(const char *name, char *value, size_t size);

#define NO_SOCKET ((udp_socket)-1)

/* Open a UDP socket on 127.0.0.1:`*port`; 0 becomes the port chosen. NO_SOCKET with Windows' code in `*error`. */
udp_socket udp_open(uint16_t *port, uint32_t *error);
bool udp_send(udp_socket from, uint16_t port, const void *data, size_t size);

/* Wait for the next datagram and return its size; negative for an error. */
int udp_receive(udp_socket socket, void *data, size_t size);
void udp_close(udp_socket socket);

#endif
