"""Lookout: a thread that waits in the place of event loops, where these cannot wait for what is to be waited for.

On Windows that is so: its Proactor loop waits for no readiness. There is one while somebody awaits, not one for
each packet. Knows nothing of sessions and packets.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from threepipe.net.notify import call_soon

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["Lookout"]

_IDLE = 1.0  # Seconds that the thread stays when nobody awaits, so that it serves many bundles.


class Lookout:
    """Waits in a thread of its own while there are those who await. Thread-safe."""

    def __init__(self, wait: Callable[[], object]) -> None:
        """`wait` waits until they are to be told. What it raises, whoever awaits next gets."""
        self._wait = wait
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._closed = False

    def notify(self, loop: "AbstractEventLoop", callback: Callable[[], None]) -> Callable[[], None]:
        """Have `loop` call `callback` once, unless what is returned is called before."""
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
                # A daemon, for a session that nobody closes must not keep the program from ending.
                self._thread = threading.Thread(target=self._run, name="threepipe-lookout", daemon=True)
                self._thread.start()
        return partial(self._forget, listener)

    def close(self) -> None:
        """Return once nobody waits any more, and nobody will; `wait` has to return by itself."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            # The thread itself is here where it was the one to collect what had been forgotten.
            self._changed.wait_for(lambda: self._thread in (None, threading.current_thread()))

    def _forget(self, listener: Callable[[], None]) -> None:
        with self._changed:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def _run(self) -> None:
        while self._is_wanted():
            failure = None
            try:
                self._wait()
            except Exception as error:
                failure = error
            with self._changed:
                self._failure = failure
                self._tell()

    def _is_wanted(self) -> bool:
        """Wait a while for somebody who awaits; where nobody does the thread is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._listeners or self._closed, _IDLE)
            if self._listeners and not self._closed:
                return True
            self._tell()
            self._thread = None
            self._changed.notify_all()
            return False

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
        self._listeners.clear()
