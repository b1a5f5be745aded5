/* session.h, and the functions of Wintun that start and end a session. */
#include "session.h"

#include "adapter.h"
#include "faults.h"
#include "log.h"

static mutex lock = MUTEX_INIT;
static struct session *sessions;

bool session_enter(struct session *session)
{
    atomic_fetch_add(&session->inside, 1);
    if (!atomic_load(&session->ended))
        return true;
    atomic_fetch_sub(&session->inside, 1);
    violation(USE_AFTER_END);
    set_last_error(ERROR_INVALID_HANDLE);
    return false;
}

void session_leave(struct session *session)
{
    atomic_fetch_sub(&session->inside, 1);
}

static struct session *new_session(uint32_t capacity)
{
    struct session *session = calloc(1, sizeof *session);
    if (!session)
        return NULL;
    mutex_init(&session->receiving);
    mutex_init(&session->sending);
    session->capacity = capacity;
    if (claims_init(&session->received, capacity) && claims_init(&session->allocated, capacity))
        return session;
    claims_free(&session->received);
    free(session);
    return NULL;
}

/* Make the session of a netif that was connected for it; WintunEndSession releases the references to both. */
static struct session *start(struct netif *netif, uint32_t capacity)
{
    struct session *session = new_session(capacity);
    if (!session) {
        netif_disconnect(netif);
        return NULL;
    }
    session->netif = netif;
    session->driver = netif->driver;
    mutex_lock(&lock);
    session->next = sessions;
    sessions = session;
    mutex_unlock(&lock);
    count(SESSIONS, 1);
    return session;
}

WINTUN_SESSION_HANDLE WINAPI WintunStartSession(WINTUN_ADAPTER_HANDLE Adapter, DWORD Capacity)
{
    struct session *session = NULL;
    uint32_t error = fault_of_call(CONTRACT_START_SESSION);
    struct netif *netif = adapter_enter(Adapter);
    if (!netif)
        return NULL;
    if (!error && !(error = netif_connect(netif, Capacity)) && !(session = start(netif, Capacity)))
        error = ERROR_NOT_ENOUGH_MEMORY;
    adapter_leave(netif);
    if (!session) {
        log_line(WINTUN_LOG_ERR, L"Failed to register rings (Code 0x%08X)", error);
        set_last_error(error);
    }
    return session;
}

VOID WINAPI WintunEndSession(WINTUN_SESSION_HANDLE Session)
{
    fault_of_call(CONTRACT_END_SESSION);
    if (atomic_exchange(&Session->ended, true)) {
        violation(USE_AFTER_END);
        return;
    }
    if (atomic_load(&Session->inside))
        violation(END_INSIDE_CALL);
    while (atomic_load(&Session->inside))
        thread_yield();
    count(UNRELEASED_AT_END, Session->received.count);
    count(UNSENT_AT_END, Session->allocated.count);
    netif_disconnect(Session->netif);
    claims_free(&Session->received);
    claims_free(&Session->allocated);
    count(SESSIONS, -1);
}

HANDLE WINAPI WintunGetReadWaitEvent(WINTUN_SESSION_HANDLE Session)
{
    if (!session_enter(Session))
        return NULL;
    fault_of_call(CONTRACT_GET_READ_WAIT_EVENT);
    HANDLE event = Session->driver->readable;
    session_leave(Session);
    return event;
}
