"""Closing a session, or its adapter, while others use it."""

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future

import pytest

from tests.support.sessions import (
    CAPACITY,
    FITTING,
    USES,
    Pair,
    Sessions,
    first_bundle,
    in_thread,
    numbers,
    packet,
    packets,
    until,
    until_waiting,
)
from threepipe import EndpointEnded, MemoryAdapter, Session, SessionClosed


def everyone(session: Session) -> Coroutine[None, None, list[object]]:
    """Run two tasks that receive and two that send; return their results and exceptions."""

    async def run() -> list[object]:
        waits = session.receive_async(), session.receive_async()
        sends = session.send_async(packets(1)), session.send_async(packets(1))
        return list(await asyncio.gather(*waits, *sends, return_exceptions=True))

    return run()


@pytest.mark.parametrize("by", ["session", "adapter"])
def test_close_wakes_every_waiter(adapters: Pair, sessions: Sessions, by: str) -> None:
    left, _ = sessions
    assert left.send(packets(FITTING)) == FITTING
    threads: list[Future[object]] = [in_thread(left.receive) for _ in range(3)]
    threads += [in_thread(left.receive, 50), in_thread(left.receive_packet)]
    threads += [in_thread(left.send, packets(1), timeout) for timeout in (None, None, 50)]
    threads += [in_thread(left.send_packet, packet(0), None)]
    loops = [in_thread(asyncio.run, everyone(left)) for _ in range(2)]
    until_waiting(left, 9 + 8)
    left.close() if by == "session" else adapters[0].close()
    for future in threads:
        assert isinstance(future.exception(timeout=10), SessionClosed)
    for results in [loop.result(timeout=10) for loop in loops]:
        assert [type(result) for result in results] == [SessionClosed] * 4
    assert left.statistics.sent_dropped == 4 + 4


def test_close_of_the_far_adapter_wakes_every_waiter(adapters: Pair, sessions: Sessions) -> None:
    left, _ = sessions
    assert left.send(packets(FITTING)) == FITTING
    threads: list[Future[object]] = [in_thread(left.receive), in_thread(left.receive)]
    threads += [in_thread(left.send, packets(1), None)]
    loop = in_thread(asyncio.run, everyone(left))
    until_waiting(left, 3 + 4)
    adapters[1].close()
    for future in threads:
        assert isinstance(future.exception(timeout=10), EndpointEnded)
    assert [type(result) for result in loop.result(timeout=10)] == [EndpointEnded] * 4


def test_every_concurrent_close_returns_after_the_link_is_down(adapters: Pair, sessions: Sessions) -> None:
    barrier = threading.Barrier(4)

    def close() -> bool:
        barrier.wait()
        sessions[0].close()
        return adapters[0].link_up

    closers = [in_thread(close) for _ in range(4)]
    assert [closer.result(timeout=10) for closer in closers] == [False] * 4
    sessions[0].close()
    assert sessions[0].closed


def test_every_use_of_a_closed_session_raises(sessions: Sessions) -> None:
    left, right = sessions
    right.send(packets(3))
    with left:
        assert not left.closed
    assert left.closed
    for use in USES.values():
        with pytest.raises(SessionClosed, match="the session is closed"):
            use(left)
    assert list(left) == []
    assert not asyncio.run(first_bundle(left))


def test_iteration_ends_when_the_session_is_closed(sessions: Sessions) -> None:
    left, right = sessions

    def collect() -> list[int]:
        return [number for bundle in right for number in numbers(bundle)]

    async def collect_async() -> list[int]:
        return [number async for bundle in right for number in numbers(bundle)]

    collecting = [in_thread(collect), in_thread(asyncio.run, collect_async())]
    until_waiting(right, 2)
    left.send(packets(100))
    left.send(packets(100, 200))
    until(lambda: right.statistics.received_packets == 200)
    right.close()
    assert sorted([number for future in collecting for number in future.result(timeout=10)]) == list(range(200))


def test_iteration_can_be_stopped_and_resumed(sessions: Sessions) -> None:
    left, right = sessions
    left.send(packets(300))
    assert len(next(iter(right))) == 256
    assert numbers(asyncio.run(first_bundle(right))) == list(range(256, 300))


def test_close_at_any_moment_ends_all_users_without_error() -> None:
    rng = random.Random(7)
    for _ in range(100):
        left, right = MemoryAdapter.pair()
        with left, right:
            ends = [left.start_session(CAPACITY), right.start_session(CAPACITY)]
            uses: list[Callable[[Session], object]] = [list, list, send_on, send_on]
            users = [in_thread(use, end) for end in ends for use in uses]
            ends[0].receive(timeout=10)
            rng.shuffle(ends)
            for end in ends:
                end.close()
            for user in users:
                user.result(timeout=10)


def send_on(session: Session) -> None:
    """Send until the session is closed."""
    try:
        while True:
            session.send([packet(1, 1500)] * 20, timeout=None)
    except SessionClosed:
        return
