"""The checks of sessions: waiting, threads, event loops, closing, counts."""

import asyncio
import multiprocessing.connection
import selectors
import threading
import time

from threepipe.adapter import Adapter
from threepipe.errors import InvalidSetting, SessionClosed, SessionExists
from threepipe.ring import MIN_CAPACITY
from threepipe.testing import probes
from threepipe.testing.wire import Wire

__all__ = [
    "check_after_close",
    "check_asyncio",
    "check_close_wakes_threads",
    "check_fileno",
    "check_link_state",
    "check_one_session",
    "check_statistics",
    "check_threads",
    "check_timeouts",
]


def check_timeouts(adapter: Adapter, wire: Wire) -> None:
    """Check that `receive` returns an empty bundle after its timeout and not before, and that 0 does not wait."""
    with adapter.start_session() as session:
        while session.receive(timeout=0.3):
            pass  # Packets that the system sends by itself when a link comes up.
        start = time.monotonic()
        bundle = session.receive(timeout=0.05)
        assert bundle or time.monotonic() - start >= 0.049, "receive returned before its timeout"
        assert not session.receive(timeout=0)
        assert session.receive_packet(timeout=0) == b""


def check_link_state(adapter: Adapter, wire: Wire) -> None:
    """Check that the link is up exactly while a session is open, for several sessions in turn."""
    assert not adapter.link_up, "the link is up without a session"
    for _ in range(3):
        with adapter.start_session() as session:
            assert adapter.link_up, "the link is down with a session"
            wire.send([probes.packet(7)])
            assert probes.collect(session.receive, 1) == [probes.packet(7)]
        assert not adapter.link_up, "the link is up after the session"


def check_one_session(adapter: Adapter, wire: Wire) -> None:
    """Check that a second session is refused while one is open, and that invalid capacities are."""
    for capacity in (0, MIN_CAPACITY - 1, MIN_CAPACITY + 4, 2 * 0x4000000):
        probes.raises(InvalidSetting, "capacity is checked", adapter.start_session, capacity)
    with adapter.start_session() as session:
        probes.raises(SessionExists, "one session at a time", adapter.start_session)
        assert session.send([probes.packet(1)]) == 1, "the refused session harmed the first"


def check_close_wakes_threads(adapter: Adapter, wire: Wire) -> None:
    """Check that closing wakes every waiting thread with `SessionClosed`."""
    session = adapter.start_session()
    ready = threading.Barrier(4)
    ended: list[str] = []

    def wait() -> None:
        ready.wait(probes.SECONDS)
        try:
            while True:
                session.receive()
        except SessionClosed:
            ended.append("receive")

    def iterate() -> None:
        ready.wait(probes.SECONDS)
        for _ in session:
            pass
        ended.append("iteration")

    threads = [threading.Thread(target=target, daemon=True) for target in (wait, wait, iterate)]
    for thread in threads:
        thread.start()
    ready.wait(probes.SECONDS)
    session.close()
    for thread in threads:
        thread.join(probes.SECONDS)
    assert sorted(ended) == ["iteration", "receive", "receive"], f"only these threads woke: {ended}"


def check_after_close(adapter: Adapter, wire: Wire) -> None:
    """Check that every call of a closed session raises `SessionClosed`, except its statistics."""
    with adapter.start_session() as session:
        session.send([probes.packet(1)])
    session.close()
    assert session.closed
    for call in (session.receive, session.receive_packet, session.fileno):
        probes.raises(SessionClosed, "a closed session does nothing", call)
    probes.raises(SessionClosed, "a closed session does nothing", session.send, [probes.packet(1)])
    probes.raises(SessionClosed, "a closed session does nothing", lambda: asyncio.run(session.receive_async()))
    assert list(session) == []
    assert session.statistics.sent_packets == 1


def check_threads(adapter: Adapter, wire: Wire) -> None:
    """Check that several threads can use both directions at once without loss or reordering."""
    count, senders = 100, 3
    with adapter.start_session() as session:

        def send(first: int) -> None:
            for number in range(first, first + count):
                session.send([probes.packet(number)], timeout=None)

        threads = [threading.Thread(target=send, args=(count * n,), daemon=True) for n in range(senders)]
        for thread in threads:
            thread.start()
        got_by_wire: list[bytes] = []
        for number in range(count):
            wire.send([probes.packet(number)])
            assert probes.collect(session.receive, 1) == [probes.packet(number)]
            got_by_wire += probes.ours(wire.receive(0))
        got_by_wire += probes.collect(wire.receive, count * senders - len(got_by_wire))
        for thread in threads:
            thread.join(probes.SECONDS)
        # Packets differ by their number only, so sorting them sorts by number.
        expected = probes.packets(count * senders)
        assert sorted(got_by_wire) == expected, "packets of several threads were lost"
        for own in (set(expected[first : first + count]) for first in range(0, len(expected), count)):
            in_order = [packet for packet in got_by_wire if packet in own]
            assert in_order == sorted(in_order), "packets of one thread were reordered"


def check_fileno(adapter: Adapter, wire: Wire) -> None:
    """Check that `fileno()` becomes readable when a packet arrives, and when the session is closed."""
    with adapter.start_session() as session:
        descriptor = session.fileno()
        while session.receive(timeout=0.3):
            pass
        assert not _is_readable(descriptor, 0), "readable without packets"
        wire.send(probes.packets(2))
        assert _is_readable(descriptor, probes.SECONDS), "not readable despite packets"
        assert probes.collect(session.receive, 2) == probes.packets(2)
        while session.receive(timeout=0):
            pass
        closing = threading.Timer(0.01, session.close)
        closing.start()
        assert _is_readable(descriptor, probes.SECONDS), "not readable after close"
        closing.join()


def _is_readable(descriptor: int, timeout: float) -> bool:
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            return bool(selector.select(timeout))
    except OSError:  # Windows: selectors take sockets only, and an adapter has an event.
        return bool(multiprocessing.connection.wait([descriptor], timeout))


def check_asyncio(adapter: Adapter, wire: Wire) -> None:
    """Check that a session works in an event loop: waiting, sending, cancelling, iterating, closing."""
    asyncio.run(asyncio.wait_for(_use_asyncio(adapter, wire), probes.SECONDS))


async def _use_asyncio(adapter: Adapter, wire: Wire) -> None:
    packets = probes.packets(5)
    session = adapter.start_session()
    waiting = asyncio.create_task(session.receive_async())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    received: list[bytes] = []

    async def receive_all() -> None:
        async for bundle in session:
            received.extend(probes.ours(bundle))
            if len(received) == len(packets):
                return

    reader = asyncio.create_task(receive_all())
    await asyncio.sleep(0)
    for packet in packets:
        wire.send([packet])
        await asyncio.sleep(0)
    await reader
    assert received == packets, "packets were lost or reordered by a cancelled receive"
    assert await session.send_async(packets) == len(packets)
    assert probes.collect(wire.receive, len(packets)) == packets

    async def until_closed() -> str:
        async for _ in session:
            pass
        return "ended"

    async def receive_until_closed() -> str:
        while True:
            await session.receive_async()

    tasks = [asyncio.create_task(until_closed()), *(asyncio.create_task(receive_until_closed()) for _ in range(3))]
    await asyncio.sleep(0)
    await asyncio.to_thread(session.close)
    first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert first == "ended", "async iteration did not end with the session"
    assert all(isinstance(end, SessionClosed) for end in others), "close did not wake a waiting task"


def check_statistics(adapter: Adapter, wire: Wire) -> None:
    """Check that session and adapter count every packet and byte, both ways."""
    with adapter.start_session() as session:
        wire.send(probes.packets(10))
        probes.collect(session.receive, 10)
        session.send(probes.packets(7, 200))
        probes.collect(wire.receive, 7)  # The system may count a packet a little later than `send` returns.
        counts, system = session.statistics, adapter.statistics
        assert counts.received_packets >= 10
        assert counts.received_bytes >= 1000
        assert 1 <= counts.received_bundles <= counts.received_packets
        assert (counts.sent_packets, counts.sent_bytes, counts.sent_bundles) == (7, 1400, 1)
        assert counts.sent_dropped == 0
        assert system.received_packets >= 10
        assert system.sent_packets == 7
        assert system.sent_bytes == 1400
