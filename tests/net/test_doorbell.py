"""The doorbell: set until cleared, for threads, selectors and event loops."""

import asyncio
import errno
import os
import select
import socket
import sys
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


def test_a_rung_doorbell_is_set_until_cleared(bell: Doorbell) -> None:
    assert not is_set(bell)
    bell.ring()
    assert is_set(bell)
    assert is_set(bell)
    bell.clear()
    assert not is_set(bell)
    bell.ring()
    assert is_set(bell)


def test_ring_and_clear_can_be_repeated(bell: Doorbell) -> None:
    bell.clear()
    for _ in range(3):
        bell.ring()
    bell.clear()
    assert not is_set(bell)
    bell.clear()
    bell.ring()
    assert is_set(bell)


def test_a_doorbell_rung_100_000_times_can_be_cleared(bell: Doorbell) -> None:
    for _ in range(100_000):
        bell.ring()
    bell.clear()
    assert not is_set(bell)


def test_a_doorbell_rung_for_ever_stays_set(bell: Doorbell) -> None:
    bell.ring()
    bell.ring(for_ever=True)
    for _ in range(2):
        bell.clear()
        assert is_set(bell)
        bell.ring()


def test_wait_returns_at_once_when_set(bell: Doorbell) -> None:
    bell.ring()
    bell.wait(None)
    bell.wait(0)
    assert is_set(bell)


def test_wait_returns_after_the_timeout(bell: Doorbell) -> None:
    bell.wait(0)
    start = time.monotonic()
    bell.wait(0.02)
    assert time.monotonic() - start >= 0.019
    assert not is_set(bell)


def test_ring_wakes_every_waiting_thread(bell: Doorbell) -> None:
    with ThreadPoolExecutor() as pool:
        waiters = [pool.submit(bell.wait, None) for _ in range(4)]
        bell.ring()
        assert [waiter.result(timeout=10) for waiter in waiters] == [None] * 4


def test_ring_notifies_an_event_loop(bell: Doorbell) -> None:
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


def test_notify_calls_back_at_once_when_set(bell: Doorbell) -> None:
    async def wait() -> None:
        ready = asyncio.Event()
        bell.ring()
        bell.notify(asyncio.get_running_loop(), ready.set)()
        await ready.wait()

    asyncio.run(wait())


def test_a_cancelled_notification_is_not_called(bell: Doorbell) -> None:
    async def wait() -> bool:
        told = asyncio.Event()
        bell.notify(asyncio.get_running_loop(), told.set)()
        bell.ring()
        await asyncio.sleep(0)
        return told.is_set()

    assert not asyncio.run(wait())


def test_ring_with_a_closed_event_loop_does_not_raise(bell: Doorbell) -> None:
    loop = asyncio.new_event_loop()
    bell.notify(loop, lambda: None)
    loop.close()
    bell.ring()
    assert is_set(bell)


def test_concurrent_ring_and_clear_keep_a_doorbell_consistent(bell: Doorbell) -> None:
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


def test_waits_of_the_main_thread_on_windows_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [patience(timeout) for timeout in (None, 50.0)] == ([None, 50.0] if os.name == "posix" else [0.2, 0.2])
    with ThreadPoolExecutor(1) as other, monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "name", "nt")
        assert [patience(timeout) for timeout in (None, 50.0, 0.1, 0.0)] == [0.2, 0.2, 0.1, 0.0]
        assert other.submit(patience, None).result() is None  # Only the main thread handles Ctrl-C.


@pytest.mark.skipif(sys.platform == "win32", reason="on Windows select takes sockets alone")
def test_without_connected_sockets_as_in_a_browser_a_pipe_takes_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_sockets() -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(socket, "socketpair", no_sockets)
    bell = Doorbell()
    bell.ring()
    assert select.select([bell], [], [], 5)[0] == [bell]
    bell.clear()
    assert select.select([bell], [], [], 0)[0] == []
    bell.close()


def test_another_want_of_sockets_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptors() -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(socket, "socketpair", no_descriptors)
    with pytest.raises(OSError, match="too many open files"):
        Doorbell()
