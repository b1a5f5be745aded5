"""A thread that waits for event loops that cannot wait themselves (Windows' Proactor).

The thread exists while tasks wait, and a second longer, so that it serves many packets. Knows nothing of sessions and
packets.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from threepipe.net.notify import call_soon

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["Lookout"]

_IDLE = 1.0  # Seconds that the thread stays without a task to wait for, so that it serves many bundles.


class Lookout:
    """Runs a blocking wait in a thread of its own while tasks want to be notified. Thread-safe."""

    def __init__(self, wait: Callable[[], object]) -> None:
        """`wait` returns when the tasks have to be notified. If it raises, the next `notify` raises that."""
        self._wait = wait
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._closed = False

    def notify(self, loop: "AbstractEventLoop", callback: Callable[[], None]) -> Callable[[], None]:
        """Have `loop` call `callback` once. Return a function that cancels this."""
        listener = partial(call_soon, loop, callback)
        with self._changed:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._closed:
                listener()
                return partial(self._forget, listener)
            self._listeners.append(listener)
            self._changed.notify_all()
            if self._thread is None:
                # A daemon, as a session that is never closed must not keep the program from ending.
                self._thread = threading.Thread(target=self._run, name="threepipe-lookout", daemon=True)
                self._thread.start()
        return partial(self._forget, listener)

    def close(self) -> None:
        """Wait until the thread has ended. The caller has to make `wait` return."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            # The garbage collector may have called this in the thread itself.
            self._changed.wait_for(lambda: self._thread in (None, threading.current_thread()))

    def _forget(self, listener: Callable[[], None]) -> None:
        with self._changed:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def _run(self) -> None:
        while self._is_needed():
            failure = None
            try:
                self._wait()
            except Exception as error:
                failure = error
            with self._changed:
                self._failure = failure
                self._notify_all()

    def _is_needed(self) -> bool:
        """Wait a while for a task. Return False, and end the thread's term, if none came."""
        with self._changed:
            self._changed.wait_for(lambda: self._listeners or self._closed, _IDLE)
            if self._listeners and not self._closed:
                return True
            self._notify_all()
            self._thread = None
            self._changed.notify_all()
            return False

    def _notify_all(self) -> None:
        for listener in self._listeners:
            listener()
        self._listeners.clear()
