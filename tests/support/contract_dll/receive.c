/* The functions of Wintun that receive: the program's side of the ring that the driver fills. */
#include <string.h>

#include "faults.h"
#include "session.h"

enum { RELEASED = 0xDD }; /* The byte that overwrites a released packet. */

/* Return the packet at the private head, and advance it; NULL with an error. */
static uint8_t *receive(struct session *session, uint32_t *size, uint32_t *error)
{
    struct ring *ring = session->driver->inbound;
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    if (tail >= session->capacity) {
        *error = ERROR_HANDLE_EOF;
        return NULL;
    }
    ring_state state = ring_look(ring, session->head, tail, session->capacity, size);
    if (state != RING_RECORD) {
        *error = state == RING_EMPTY ? ERROR_NO_MORE_ITEMS : ERROR_INVALID_DATA;
        return NULL;
    }
    uint32_t *record = record_size(ring, session->head);
    claims_add(&session->received, session->head);
    session->head = (session->head + (uint32_t)record_length(*size)) & (session->capacity - 1);
    *record |= RECORD_OPEN;
    return (uint8_t *)(record + 1);
}

BYTE *WINAPI WintunReceivePacket(WINTUN_SESSION_HANDLE Session, DWORD *PacketSize)
{
    uint8_t *packet = NULL;
    uint32_t size = 0;
    if (!session_enter(Session))
        return NULL;
    uint32_t error = fault_of_call(CONTRACT_RECEIVE_PACKET);
    if (!error) {
        mutex_lock(&Session->receiving);
        packet = receive(Session, &size, &error);
        mutex_unlock(&Session->receiving);
    }
    session_leave(Session);
    if (packet)
        *PacketSize = size;
    else
        set_last_error(error);
    return packet;
}

static bool release(struct session *session, const uint8_t *packet)
{
    struct ring *ring = session->driver->inbound;
    uint32_t offset;
    if (!claims_settle(&session->received, ring, session->capacity, packet, &offset))
        return false;
    if (offset != session->released)
        count(RELEASED_OUT_OF_ORDER, 1);
    uint32_t *record = record_size(ring, offset);
    *record &= ~RECORD_OPEN;
    memset(record + 1, RELEASED, *record);
    ring_pass_settled(ring, &session->released, session->head, session->capacity);
    atomic_store_explicit(&ring->head, session->released, memory_order_release);
    return true;
}

VOID WINAPI WintunReleaseReceivePacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet)
{
    if (!session_enter(Session))
        return;
    fault_of_call(CONTRACT_RELEASE_RECEIVE_PACKET);
    mutex_lock(&Session->receiving);
    bool released = release(Session, Packet);
    mutex_unlock(&Session->receiving);
    session_leave(Session);
    if (!released)
        violation(WRONG_RELEASE);
}
