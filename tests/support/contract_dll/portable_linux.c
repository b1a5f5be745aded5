/* portable.h on Linux. */
#include "portable.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 4 << 20 };

struct thread {
    pthread_t id;
    void (*run)(void *);
    void *argument;
};

void mutex_init(mutex *lock)
{
    pthread_mutex_init(lock, NULL);
}

void mutex_lock(mutex *lock)
{
    pthread_mutex_lock(lock);
}

void mutex_unlock(mutex *lock)
{
    pthread_mutex_unlock(lock);
}

static void *enter(void *argument)
{
    thread *self = argument;
    self->run(self->argument);
    return NULL;
}

thread *thread_start(void (*run)(void *), void *argument)
{
    thread *started = malloc(sizeof *started);
    if (!started)
        return NULL;
    *started = (thread){.run = run, .argument = argument};
    if (pthread_create(&started->id, NULL, enter, started)) {
        free(started);
        return NULL;
    }
    return started;
}

void thread_join(thread *started)
{
    pthread_join(started->id, NULL);
    free(started);
}

void thread_yield(void)
{
    sched_yield();
}

void sleep_milliseconds(uint32_t milliseconds)
{
    struct timespec rest = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    while (nanosleep(&rest, &rest))
        ;
}

HANDLE event_new(void)
{
    int descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return descriptor < 0 ? NULL : (HANDLE)(intptr_t)descriptor;
}

void event_set(HANDLE event)
{
    uint64_t one = 1;
    if (write((int)(intptr_t)event, &one, sizeof one) < 0)
        return; /* It is set already; its counter is full. */
}

bool event_wait(HANDLE event, uint32_t milliseconds)
{
    struct pollfd waiting = {.fd = (int)(intptr_t)event, .events = POLLIN};
    uint64_t count;
    uint64_t deadline = monotonic_milliseconds() + milliseconds;
    for (;;) {
        if (read(waiting.fd, &count, sizeof count) == sizeof count)
            return true;
        uint64_t now = monotonic_milliseconds();
        if (milliseconds == INFINITE_WAIT)
            poll(&waiting, 1, -1);
        else if (now >= deadline)
            return false;
        else
            poll(&waiting, 1, deadline - now > INT32_MAX ? INT32_MAX : (int)(deadline - now));
    }
}

void event_free(HANDLE event)
{
    close((int)(intptr_t)event);
}

uint64_t monotonic_microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t monotonic_milliseconds(void)
{
    return monotonic_microseconds() / 1000;
}

uint64_t filetime_now(void)
{
    const uint64_t seconds_from_1601_to_1970 = 11644473600;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return ((uint64_t)now.tv_sec + seconds_from_1601_to_1970) * 10000000 + (uint64_t)now.tv_nsec / 100;
}

void random_bytes(void *target, size_t size)
{
    if (getrandom(target, size, 0) != (ssize_t)size)
        abort();
}

void set_last_error(uint32_t error)
{
    errno = (int)error;
}

void get_environment(const char *name, char *value, size_t size)
{
    const char *found = getenv(name);
    size_t length = found ? strlen(found) : 0;
    if (length >= size)
        length = 0;
    memcpy(value, found ? found : "", length);
    value[length] = 0;
}

static struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

udp_socket udp_open(uint16_t *port, uint32_t *error)
{
    struct sockaddr_in address = loopback(*port);
    socklen_t size = sizeof address;
    int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0 || bind(descriptor, (struct sockaddr *)&address, size)) {
        *error = errno == EADDRINUSE ? WSAEADDRINUSE : (uint32_t)errno;
        if (descriptor >= 0)
            close(descriptor);
        return NO_SOCKET;
    }
    int buffer = BUFFER;
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    getsockname(descriptor, (struct sockaddr *)&address, &size);
    *port = ntohs(address.sin_port);
    return descriptor;
}

bool udp_send(udp_socket from, uint16_t port, const void *data, size_t size)
{
    struct sockaddr_in address = loopback(port);
    return sendto(from, data, size, 0, (struct sockaddr *)&address, sizeof address) == (ssize_t)size;
}

int udp_receive(udp_socket socket, void *data, size_t size)
{
    return (int)recv(socket, data, size, 0);
}

void udp_close(udp_socket socket)
{
    close(socket);
}
