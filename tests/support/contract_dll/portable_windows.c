/* portable.h on Windows. */
#include <winsock2.h>
#include <windows.h>

#include <ntsecapi.h>
#include <stdlib.h>

#include "portable.h"

enum { BUFFER = 4 << 20 };

struct thread {
    HANDLE handle;
    void (*run)(void *);
    void *argument;
};

void mutex_init(mutex *lock)
{
    InitializeSRWLock(lock);
}

void mutex_lock(mutex *lock)
{
    AcquireSRWLockExclusive(lock);
}

void mutex_unlock(mutex *lock)
{
    ReleaseSRWLockExclusive(lock);
}

static DWORD WINAPI enter(void *argument)
{
    thread *self = argument;
    self->run(self->argument);
    return 0;
}

thread *thread_start(void (*run)(void *), void *argument)
{
    thread *started = malloc(sizeof *started);
    if (!started)
        return NULL;
    *started = (thread){.run = run, .argument = argument};
    started->handle = CreateThread(NULL, 0, enter, started, 0, NULL);
    if (!started->handle) {
        free(started);
        return NULL;
    }
    return started;
}

void thread_join(thread *started)
{
    WaitForSingleObject(started->handle, INFINITE);
    CloseHandle(started->handle);
    free(started);
}

void thread_yield(void)
{
    SwitchToThread();
}

void sleep_milliseconds(uint32_t milliseconds)
{
    Sleep(milliseconds);
}

HANDLE event_new(void)
{
    return CreateEventW(NULL, FALSE, FALSE, NULL);
}

void event_set(HANDLE event)
{
    SetEvent(event);
}

bool event_wait(HANDLE event, uint32_t milliseconds)
{
    return WaitForSingleObject(event, milliseconds) == WAIT_OBJECT_0; /* INFINITE is INFINITE_WAIT. */
}

void event_free(HANDLE event)
{
    CloseHandle(event);
}

uint64_t monotonic_microseconds(void)
{
    LARGE_INTEGER now, frequency;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&frequency);
    uint64_t ticks = (uint64_t)now.QuadPart, a_second = (uint64_t)frequency.QuadPart;
    return ticks / a_second * 1000000 + ticks % a_second * 1000000 / a_second;
}

uint64_t monotonic_milliseconds(void)
{
    return GetTickCount64();
}

uint64_t filetime_now(void)
{
    FILETIME now;
    GetSystemTimeAsFileTime(&now);
    return (uint64_t)now.dwHighDateTime << 32 | now.dwLowDateTime;
}

void random_bytes(void *target, size_t size)
{
    if (!RtlGenRandom(target, (ULONG)size))
        abort();
}

void set_last_error(uint32_t error)
{
    SetLastError(error);
}

void get_environment(const char *name, char *value, size_t size)
{
    DWORD length = GetEnvironmentVariableA(name, value, (DWORD)size);
    if (!length || length >= size)
        value[0] = 0;
}

static struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

udp_socket udp_open(uint16_t *port, uint32_t *error)
{
    WSADATA data;
    struct sockaddr_in address = loopback(*port);
    int size = sizeof address, buffer = BUFFER;
    WSAStartup(MAKEWORD(2, 2), &data);
    SOCKET opened = socket(AF_INET, SOCK_DGRAM, 0);
    if (opened == INVALID_SOCKET || bind(opened, (struct sockaddr *)&address, size)) {
        *error = (uint32_t)WSAGetLastError();
        if (opened != INVALID_SOCKET)
            closesocket(opened);
        WSACleanup();
        return NO_SOCKET;
    }
    setsockopt(opened, SOL_SOCKET, SO_RCVBUF, (char *)&buffer, sizeof buffer);
    setsockopt(opened, SOL_SOCKET, SO_SNDBUF, (char *)&buffer, sizeof buffer);
    getsockname(opened, (struct sockaddr *)&address, &size);
    *port = ntohs(address.sin_port);
    return opened;
}

bool udp_send(udp_socket from, uint16_t port, const void *data, size_t size)
{
    struct sockaddr_in address = loopback(port);
    return sendto(from, data, (int)size, 0, (struct sockaddr *)&address, sizeof address) == (int)size;
}

int udp_receive(udp_socket socket, void *data, size_t size)
{
    return recv(socket, data, (int)size, 0);
}

void udp_close(udp_socket socket)
{
    closesocket(socket);
    WSACleanup();
}
