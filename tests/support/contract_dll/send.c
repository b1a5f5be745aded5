/* The functions of Wintun that send: the program's side of the ring that the driver empties. */
#include "faults.h"
#include "session.h"

/* Return room at the private tail, and advance it; NULL with an error. */
static uint8_t *allocate(struct session *session, uint32_t size, uint32_t *error)
{
    struct ring *ring = session->driver->outbound;
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    if (head >= session->capacity) {
        *error = ERROR_HANDLE_EOF;
        return NULL;
    }
    if (record_length(size) > ring_space(head, session->tail, session->capacity)) {
        *error = ERROR_BUFFER_OVERFLOW;
        return NULL;
    }
    uint32_t *record = record_size(ring, session->tail);
    claims_add(&session->allocated, session->tail);
    session->tail = (session->tail + (uint32_t)record_length(size)) & (session->capacity - 1);
    *record = size | RECORD_OPEN;
    return (uint8_t *)(record + 1);
}

BYTE *WINAPI WintunAllocateSendPacket(WINTUN_SESSION_HANDLE Session, DWORD PacketSize)
{
    uint8_t *packet = NULL;
    if (!session_enter(Session))
        return NULL;
    uint32_t error = fault_of_call(CONTRACT_ALLOCATE_SEND_PACKET);
    if (!error) {
        mutex_lock(&Session->sending);
        packet = allocate(Session, PacketSize, &error);
        mutex_unlock(&Session->sending);
    }
    session_leave(Session);
    if (packet && PacketSize > MAX_PACKET)
        violation(OVERSIZED_PACKET);
    if (!packet)
        set_last_error(error);
    return packet;
}

static bool send_packet(struct session *session, const uint8_t *packet)
{
    struct ring *ring = session->driver->outbound;
    uint32_t offset;
    if (!claims_settle(&session->allocated, ring, session->capacity, packet, &offset))
        return false;
    if (offset != session->published)
        count(SENT_OUT_OF_ORDER, 1);
    *record_size(ring, offset) &= ~RECORD_OPEN;
    uint32_t before = session->published;
    ring_pass_settled(ring, &session->published, session->tail, session->capacity);
    if (session->published == before)
        return true;
    atomic_store_explicit(&ring->tail, session->published, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst); /* See run_taker. */
    if (atomic_load_explicit(&ring->alertable, memory_order_relaxed))
        driver_wake(session->driver);
    return true;
}

VOID WINAPI WintunSendPacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet)
{
    if (!session_enter(Session))
        return;
    fault_of_call(CONTRACT_SEND_PACKET);
    mutex_lock(&Session->sending);
    bool sent = send_packet(Session, Packet);
    mutex_unlock(&Session->sending);
    session_leave(Session);
    if (!sent)
        violation(WRONG_SEND);
}
