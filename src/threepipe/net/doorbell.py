"""Doorbell: a flag that threads, selectors and event loops can wait for. Knows nothing of packets."""

import os
import selectors
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from threepipe.net.notify import call_soon

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["Doorbell", "patience"]

_LOOK = 0.2  # Seconds.


def patience(timeout: float | None) -> float | None:
    """Seconds to wait at once, if it is `timeout` in all (None: for ever).

    No more than a fifth of one in the main thread on Windows, where Ctrl-C is only looked at between waits.
    """
    if os.name == "nt" and threading.current_thread() is threading.main_thread():
        return _LOOK if timeout is None else min(timeout, _LOOK)
    return timeout


class Doorbell:
    """Set until it is cleared; its file descriptor is readable while it is set. Thread-safe.

    A connected pair of sockets, for that is what every system and event loop can wait for.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._lock = threading.Lock()
        self._rung = False
        self._stuck = False
        self._listeners: list[Callable[[], None]] = []

    def ring(self, *, for_ever: bool = False) -> None:
        """Set it: every waiter wakes, now and later, until somebody clears it; `for_ever`, nobody can."""
        with self._lock:
            self._stuck = self._stuck or for_ever
            if not self._rung:
                self._rung = True
                self._writer.send(b"\0")
                for listener in self._listeners:
                    listener()
                self._listeners.clear()

    def clear(self) -> None:
        with self._lock:
            if self._rung and not self._stuck:
                self._rung = False
                self._reader.recv(1)

    def fileno(self) -> int:
        return self._reader.fileno()

    def wait(self, timeout: float | None) -> None:
        """Until it is set, or `timeout` seconds (None: for ever) are over; it may be less."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            selector.select(patience(timeout))

    def notify(self, loop: "AbstractEventLoop", callback: Callable[[], None]) -> Callable[[], None]:
        """Have `loop` call `callback` once it is set; what it returns takes that back.

        Needs no descriptor, which Windows' own event loop could not wait for.
        """
        listener = partial(call_soon, loop, callback)
        with self._lock:
            if self._rung:
                listener()
            else:
                self._listeners.append(listener)
        return partial(self._forget, listener)

    def _forget(self, listener: Callable[[], None]) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
