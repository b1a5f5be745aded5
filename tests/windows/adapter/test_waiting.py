"""Threads and event loops that wait for Windows adapters."""

import asyncio
import itertools
import sys
import threading
from collections import deque

import pytest

import threepipe
from tests.support.contract_dll.library import Fault
from tests.support.contract_system import Bench
from tests.support.windows_adapters import SECONDS, Made, Run, in_threads, number_of, packet, packets
from threepipe.errors import SessionClosed
from threepipe.platforms.windows.waiting import Arrival
from threepipe.settings import MIN_CAPACITY

pytestmark = pytest.mark.windows


def test_a_cleared_arrival_still_signals_its_end(bench: Bench) -> None:
    """A receiver that finds nothing clears the event; the end may have come between its two checks."""
    event = bench.events.create()
    arrival = Arrival(bench.events, event)
    arrival.end()
    arrival.clear()
    told = threading.Event()
    cancel = bench.events.watch(arrival.fileno(), 2 * SECONDS, told.set)
    try:
        assert told.wait(SECONDS)
    finally:
        cancel()
        arrival.close()
        bench.events.close(event)


def test_packets_that_came_after_kept_ones_wake_another_waiter(made: Made, bench: Bench) -> None:
    """The driver's event is reset by a waiter that gets the kept packets alone."""
    adapter, wire = made
    with adapter.start_session() as session:
        arrival = session._port.readable
        session.fileno()  # Somebody else may wait.
        wire.send(packets(2))
        assert session.receive_packet(SECONDS)
        wire.send([packet(2)])
        wire.settle()
        arrival.wait(SECONDS)
        assert [number_of(packet) for packet in session.receive(0)] == [1]
        woken = threading.Event()
        cancel = bench.events.watch(arrival.fileno(), SECONDS, woken.set)
        try:
            assert woken.wait(SECONDS / 2)
        finally:
            cancel()


def test_packets_of_eight_threads_arrive_intact_and_once(made: Made) -> None:
    adapter, wire = made
    each = 1500
    with adapter.start_session() as session:
        received: list[int] = []
        lock = threading.Lock()

        def receive() -> None:
            for bundle in session:
                numbers = [number_of(packet) for packet in bundle]
                with lock:
                    received.extend(numbers)
                    if len(received) == 4 * each:
                        done.set()

        def send(first: int) -> None:
            for start in range(first, first + each, 50):
                session.send([packet(index) for index in range(start, start + 50)], timeout=None)

        done = threading.Event()
        senders = [lambda first=first: send(first) for first in range(0, 4 * each, each)]
        with in_threads(*[receive] * 4, *senders):
            for index in range(4 * each):
                wire.send([packet(index)])
            assert done.wait(SECONDS * 3)
            sent: list[int] = []
            while len(sent) < 4 * each and (more := wire.receive(SECONDS)):
                sent += map(number_of, more)
            session.close()
    assert sorted(received) == sorted(sent) == list(range(4 * each))
    for first in range(0, 4 * each, each):
        own = [number for number in sent if first <= number < first + each]
        assert own == sorted(own)


def test_close_while_others_use_the_session_ends_them(made: Made) -> None:
    adapter, wire = made
    for index in range(30):
        session = adapter.start_session()

        def receive(session: threepipe.Session = session) -> None:
            for _ in session:
                pass

        def send(session: threepipe.Session = session) -> None:
            bundles = itertools.repeat(packets(20))
            with pytest.raises(SessionClosed):
                deque(map(session.send, bundles, itertools.repeat(None)), 0)

        with in_threads(receive, receive, send):
            wire.send(packets(index))
            session.close()


def test_tasks_share_one_watch_that_ends_with_them(made: Made, bench: Bench, run: Run) -> None:
    adapter, wire = made

    async def use() -> None:
        with adapter.start_session() as session:
            tasks = [asyncio.create_task(session.receive_async()) for _ in range(5)]
            await asyncio.sleep(0)
            tasks.pop().cancel()
            for index in range(4):
                wire.send([packet(index)])
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=SECONDS)
                assert [number_of(packet) for task in done for packet in task.result()] == [index]
                tasks = [task for task in tasks if task not in done]

    run(use())
    if sys.platform != "win32":
        assert vars(bench.events)["most_watches"] <= 2  # The next watch may begin before the last one ends.


def test_the_signal_of_a_cancelled_task_wakes_another(made: Made, run: Run) -> None:
    adapter, wire = made

    async def use() -> None:
        with adapter.start_session() as session:
            first, second = (asyncio.create_task(session.receive_async()) for _ in range(2))
            for index in range(50):
                await asyncio.sleep(0)
                wire.send([packet(index)])
                first.cancel()
                bundle = await asyncio.wait_for(second, SECONDS)
                assert [number_of(packet) for packet in bundle] == [index]
                await asyncio.wait([first])
                first, second = (asyncio.create_task(session.receive_async()) for _ in range(2))
            for task in (first, second):
                task.cancel()
            await asyncio.wait([first, second])

    run(use())


def test_send_async_waits_for_room(made: Made, run: Run) -> None:
    adapter, wire = made

    async def use() -> None:
        with adapter.start_session(MIN_CAPACITY) as session:
            wire.fault(Fault.STALL, 1)
            sending = asyncio.create_task(session.send_async(packets(300, 1000)))
            await asyncio.sleep(0.01)
            assert not sending.done()
            wire.fault(Fault.STALL, 0)
            assert await asyncio.wait_for(sending, SECONDS) == 300
            wire.settle()
            assert len(wire.receive(SECONDS)) == 300

    run(use())


def test_a_task_recovers_from_a_lost_wake_up(made: Made, run: Run) -> None:
    adapter, wire = made

    async def use() -> bytes:
        with adapter.start_session() as session:
            receiving = asyncio.create_task(session.receive_async())
            await asyncio.sleep(0)
            wire.fault(Fault.LOST_WAKEUPS, 1)
            wire.send([packet(5)])
            return bytes((await asyncio.wait_for(receiving, SECONDS))[0])

    assert run(use()) == packet(5)


def test_two_event_loops_can_wait_for_one_session(made: Made) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        both = threading.Barrier(3)
        found: list[int] = []

        async def use() -> None:
            both.wait(SECONDS)
            async for bundle in session:
                found.extend(map(number_of, bundle))
                if len(found) == 20:
                    session.close()

        with in_threads(lambda: asyncio.run(use()), lambda: asyncio.run(use())):
            both.wait(SECONDS)
            wire.send(packets(20))
    assert sorted(found) == list(range(20))


def test_a_closed_event_loop_is_not_notified(made: Made, bench: Bench) -> None:
    adapter, wire = made
    with adapter.start_session() as session:
        loop = asyncio.new_event_loop()
        forget = session._port.readable.notify(loop, lambda: None)
        loop.close()
        wire.send([packet(1)])
        assert session.receive(SECONDS)[0] == packet(1)
        forget()
