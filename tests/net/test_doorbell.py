"""Tests of the doorbell: set until cleared, for threads, selectors and event loops."""

import asyncio
import os
import select
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from threepipe.net.doorbell import Doorbell, patience


@pytest.fixture
def bell() -> Iterator[Doorbell]:
    with closing(Doorbell()) as made:
        yield made


def is_set(bell: Doorbell) -> bool:
    return bool(select.select([bell], [], [], 0)[0])


def test_it_is_set_until_it_is_cleared(bell: Doorbell) -> None:
    assert not is_set(bell)
    bell.ring()
    assert is_set(bell)
    assert is_set(bell)
    bell.clear()
    assert not is_set(bell)
    bell.ring()
    assert is_set(bell)


def test_ringing_and_clearing_may_be_repeated(bell: Doorbell) -> None:
    bell.clear()
    for _ in range(3):
        bell.ring()
    bell.clear()
    assert not is_set(bell)
    bell.clear()
    bell.ring()
    assert is_set(bell)


def test_it_never_fills_up(bell: Doorbell) -> None:
    for _ in range(100_000):
        bell.ring()
    bell.clear()
    assert not is_set(bell)


def test_ringing_for_ever_cannot_be_cleared(bell: Doorbell) -> None:
    bell.ring()
    bell.ring(for_ever=True)
    for _ in range(2):
        bell.clear()
        assert is_set(bell)
        bell.ring()


def test_waiting_ends_at_once_when_it_is_set(bell: Doorbell) -> None:
    bell.ring()
    bell.wait(None)
    bell.wait(0)
    assert is_set(bell)


def test_waiting_ends_after_the_timeout(bell: Doorbell) -> None:
    bell.wait(0)
    start = time.monotonic()
    bell.wait(0.02)
    assert time.monotonic() - start >= 0.019
    assert not is_set(bell)


def test_it_wakes_every_thread(bell: Doorbell) -> None:
    with ThreadPoolExecutor() as pool:
        waiters = [pool.submit(bell.wait, None) for _ in range(4)]
        bell.ring()
        assert [waiter.result(timeout=10) for waiter in waiters] == [None] * 4


def test_an_event_loop_is_told(bell: Doorbell) -> None:
    async def wait() -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        forget = [bell.notify(loop, ready.set) for _ in range(2)]
        await asyncio.sleep(0)
        assert not ready.is_set()
        await asyncio.to_thread(bell.ring)
        await ready.wait()
        for each in forget:
            each()

    asyncio.run(wait())
    assert is_set(bell)


def test_an_event_loop_is_told_at_once_when_it_is_set(bell: Doorbell) -> None:
    async def wait() -> None:
        ready = asyncio.Event()
        bell.ring()
        bell.notify(asyncio.get_running_loop(), ready.set)()
        await ready.wait()

    asyncio.run(wait())


def test_who_was_forgotten_is_not_told(bell: Doorbell) -> None:
    async def wait() -> bool:
        told = asyncio.Event()
        bell.notify(asyncio.get_running_loop(), told.set)()
        bell.ring()
        await asyncio.sleep(0)
        return told.is_set()

    assert not asyncio.run(wait())


def test_ringing_for_a_loop_that_was_closed_harms_nobody(bell: Doorbell) -> None:
    loop = asyncio.new_event_loop()
    bell.notify(loop, lambda: None)
    loop.close()
    bell.ring()
    assert is_set(bell)


def test_threads_that_ring_and_clear_leave_it_in_order(bell: Doorbell) -> None:
    def toggle() -> None:
        for _ in range(5_000):
            bell.ring()
            bell.clear()

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(toggle) for _ in range(4)]:
            done.result(timeout=30)
    assert not is_set(bell)
    bell.ring()
    assert is_set(bell)
    bell.clear()
    assert not is_set(bell)


def test_ctrl_c_is_looked_at_soon_where_waits_are_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [patience(timeout) for timeout in (None, 50.0)] == ([None, 50.0] if os.name == "posix" else [0.2, 0.2])
    with ThreadPoolExecutor(1) as other, monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "name", "nt")
        assert [patience(timeout) for timeout in (None, 50.0, 0.1, 0.0)] == [0.2, 0.2, 0.1, 0.0]
        assert other.submit(patience, None).result() is None  # It is the main thread's business.
