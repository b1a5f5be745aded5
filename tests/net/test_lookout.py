"""A thread that waits for event loops: its notifications, its lifetime, and its failures."""

import asyncio
import selectors
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

import threepipe
from tests.support.endpoints import here
from threepipe.errors import SessionClosed
from threepipe.net.lookout import Lookout

SECONDS = 10.0


def lookouts() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "threepipe-lookout"]


async def told(lookout: Lookout) -> None:
    ready = asyncio.Event()
    forget = lookout.notify(asyncio.get_running_loop(), ready.set)
    try:
        await asyncio.wait_for(ready.wait(), SECONDS)
    finally:
        forget()


def test_one_thread_notifies_all_waiters() -> None:
    signal = threading.Semaphore(0)
    lookout = Lookout(lambda: signal.acquire(timeout=SECONDS))

    async def run() -> None:
        before = len(lookouts())
        for _ in range(3):
            waiting = [asyncio.create_task(told(lookout)) for _ in range(5)]
            await asyncio.sleep(0)
            assert len(lookouts()) == before + 1
            signal.release()
            await asyncio.gather(*waiting)

    asyncio.run(run())
    lookout.close()


def test_an_error_of_the_wait_is_raised_to_the_next_waiter_once() -> None:
    failures = [OSError("cannot wait")]

    def wait() -> None:
        if failures:
            raise failures.pop()

    lookout = Lookout(wait)

    async def run() -> None:
        await told(lookout)
        with pytest.raises(OSError, match="cannot wait"):
            await told(lookout)
        await told(lookout)

    asyncio.run(run())
    lookout.close()


def test_the_thread_ends_without_waiters_and_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threepipe.net.lookout._IDLE", 0.001)
    lookout = Lookout(lambda: None)
    for _ in range(3):
        asyncio.run(told(lookout))
        for thread in lookouts():
            thread.join(SECONDS)
        assert not lookouts()


def test_close_notifies_waiters_and_joins_the_thread() -> None:
    go, waits = threading.Event(), threading.Event()

    def wait() -> None:
        waits.set()
        go.wait(SECONDS)

    lookout = Lookout(wait)

    async def run() -> None:
        waiting = asyncio.create_task(told(lookout))
        await asyncio.to_thread(waits.wait, SECONDS)
        go.set()
        await asyncio.to_thread(lookout.close)
        assert not lookouts()
        await waiting
        await told(lookout)

    asyncio.run(run())


def test_a_cancelled_or_closed_waiter_is_not_notified() -> None:
    go = threading.Event()
    lookout = Lookout(lambda: go.wait(SECONDS))
    called: list[Callable[[], None]] = []

    async def leave() -> None:
        loop = asyncio.get_running_loop()
        lookout.notify(loop, lambda: None)
        forget = lookout.notify(loop, lambda: called.append(forget))
        forget()
        forget()

    asyncio.run(leave())
    go.set()
    asyncio.run(told(lookout))
    lookout.close()
    assert not called


def test_endpoints_can_be_awaited_with_select_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
    with ExitStack() as stack:
        place = here()
        listener = stack.enter_context(threepipe.open_endpoint(f"udp-listen:{place}"))
        caller = stack.enter_context(threepipe.open_endpoint(f"udp:{place}"))

        async def run() -> None:
            for number in range(100):
                data = b"\x45" + number.to_bytes(19, "big")
                waiting = asyncio.create_task(listener.receive_async())
                await asyncio.sleep(0)
                assert await caller.send_async([data]) == 1
                assert [bytes(each) for each in await asyncio.wait_for(waiting, SECONDS)] == [data]
            waiting = asyncio.create_task(listener.receive_async())
            await asyncio.sleep(0)
            await asyncio.to_thread(listener.close)
            with pytest.raises(SessionClosed):
                await asyncio.wait_for(waiting, SECONDS)

        asyncio.run(run())
    assert not lookouts()
