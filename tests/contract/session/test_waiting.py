"""Waiting for a session by selectors."""

import gc
import os
import select
import selectors
import sys
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from tests.support.sessions import CAPACITY, FITTING, Pair, Sessions, in_thread, packets, readable
from threepipe import EndpointEnded, MemoryAdapter, Session
from threepipe.backend import Waitable

# These tests start sessions of their own: the descriptor that `fileno` returns is freed with the session object.


def test_a_selector_reports_packets(adapters: Pair) -> None:
    left, right = (adapter.start_session(CAPACITY) for adapter in adapters)
    right.receive(timeout=0)
    with selectors.DefaultSelector() as selector:
        selector.register(right, selectors.EVENT_READ)
        assert selector.select(0) == []
        waiting = in_thread(selector.select, 30)
        left.send(packets(3))
        ((key, events),) = waiting.result(timeout=10)
        assert (key.fileobj, events) == (right, selectors.EVENT_READ)
        assert readable(right)
        assert len(right.receive()) == 3
        assert not right.receive(timeout=0)
        assert selector.select(0) == []
        assert not readable(right)


@pytest.mark.parametrize("end", [Session.close, MemoryAdapter.close], ids=["session", "adapter"])
def test_a_selector_reports_a_closed_session(adapters: Pair, end: Callable[[object], None]) -> None:
    session = adapters[0].start_session(CAPACITY)
    session.receive(timeout=0)
    with selectors.DefaultSelector() as selector:
        selector.register(fd := session.fileno(), selectors.EVENT_READ)
        assert selector.select(0) == []
        waiting: list[Future[Any]] = [in_thread(selector.select, 30), in_thread(select.select, [fd], [], [], 30)]
        end(session if end is Session.close else adapters[0])
        assert all(future.result(timeout=10) for future in waiting)
        assert readable(fd)
        adapters[0].close()
        del session
        gc.collect()
        if sys.platform != "win32":  # On Windows it is a socket number that may be in use again.
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)


def test_a_selector_reports_that_the_far_adapter_is_gone(adapters: Pair) -> None:
    session = adapters[0].start_session(CAPACITY)
    session.receive(timeout=0)
    waiting = in_thread(select.select, [session], [], [], 30)
    adapters[1].close()
    assert waiting.result(timeout=10)[0] == [session]
    with pytest.raises(EndpointEnded):
        session.receive()
    assert readable(session)


@pytest.mark.parametrize("direction", ["readable", "writable"])
def test_a_woken_port_stays_readable_and_writable(sessions: Sessions, direction: str) -> None:
    left, _ = sessions
    assert left.send(packets(FITTING)) == FITTING
    waitable: Waitable = getattr(left._port, direction)
    left._port.wake()
    assert not left.receive(timeout=0)
    assert not left.send(packets(1))
    # A `receive` or `send` in another thread must not clear the signal that other waiters need.
    assert readable(waitable)
