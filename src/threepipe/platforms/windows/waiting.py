"""Waiting on a session on Windows: for packets to receive, and for room to send. Knows no packets and no DLL.

An event is the handle of a Windows event object, as a number. `Events` names the calls of the system; `events` has the
real ones.
"""

import errno
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from threepipe.net.notify import call_soon

if TYPE_CHECKING:
    import asyncio

__all__ = ["Arrival", "Events", "Room"]

PATIENCE = 1.0
"""Seconds after which a waiter looks without an event: drivers up to 0.14.1 sometimes lose a wake-up.

Ctrl-C may take as long, as it interrupts no wait on Windows.
"""

_SHORTEST, _LONGEST = 0.001, 0.016  # Seconds; Wintun has no event for room in a full ring.

Cancel = Callable[[], None]


class Events(Protocol):
    """The event objects of the system. Thread-safe."""

    def create(self) -> int:
        """Return a new manual-reset event, not set."""

    def duplicate(self, event: int) -> int:
        """Return another handle of the same event, to be closed separately."""

    def set(self, event: int) -> None: ...

    def reset(self, event: int) -> None: ...

    def close(self, event: int) -> None: ...

    def waiter(self, *events: int) -> Callable[[float], None]:
        """Return a function that waits until one of `events` is set, or for the given seconds.

        It resets the auto-reset event that ended the wait.
        """

    def watch(self, event: int, timeout: float, fired: Callable[[], None]) -> Cancel:
        """Call `fired` once, on a thread of the system, when `event` is set or after `timeout` seconds.

        The watch must be cancelled even after that. Once `Cancel` has returned, `fired` neither runs nor will run.
        """


class Arrival:
    """A waitable that is set when packets may have come, and for ever after `end`.

    The first waiter that the driver's event wakes resets it. So a receiver must empty the ring or set the event
    `again`; and a receiver that finds nothing must `clear` it and look once more before it waits.
    """

    def __init__(self, events: Events, read_event: int) -> None:
        """`read_event` is the session's and dies with it; a duplicate handle lets waiting outlast the session."""
        self._events = events
        self._read = events.duplicate(read_event)
        self._end = events.create()
        self._wait = events.waiter(self._end, self._read)
        self._lock = threading.Lock()
        self._ended = False
        self._was_set_again = False  # Since the last waiter was woken.
        self._held = False
        self._listeners: list[Callable[[], None]] = []
        self._watch: Cancel | None = None  # The watch that has not fired yet.
        self._spent: list[Cancel] = []  # The watches that have fired.

    def fileno(self) -> int:
        """Return the handle of an event for the system's waiting functions, which reset it."""
        return self._read

    def wait(self, timeout: float | None) -> None:
        """Wait for packets or the end, at most `timeout` seconds and never longer than `PATIENCE`."""
        self._wait(PATIENCE if timeout is None or timeout > PATIENCE else timeout)
        self._was_set_again = False

    def notify(self, loop: "asyncio.AbstractEventLoop", callback: Callable[[], None]) -> Cancel:
        """Make `loop` call `callback` once when this is set. The returned function must be called even after that.

        All callbacks share one watch of the system, which exists only while callbacks wait.
        """
        listener = partial(call_soon, loop, callback)
        with self._lock:
            if self._ended:
                listener()
            else:
                self._listeners.append(listener)
                if self._watch is None:
                    self._watch = self._events.watch(self._read, PATIENCE, self._fired)
        return partial(self._forget, listener)

    def clear(self) -> None:
        """Reset after a receiver found nothing; after `end` it stays set."""
        self._events.reset(self._read)
        self._was_set_again = False
        if self._ended:  # Checked last, as `end` may have come in between.
            self._events.set(self._read)

    def again(self) -> None:
        """Set again, as packets were left.

        Do nothing if no waiter has woken since the last call; a waiter that just woke will receive and come here.
        """
        if not self._was_set_again:
            self._was_set_again = True
            self._events.set(self._read)

    def hold(self, held: bool) -> None:
        """Be set again after each packet that leaves others with the session.

        And after the last one, as the waiter that received it may have reset the event for packets that came meanwhile.
        """
        if held or self._held:
            self.again()
        self._held = held

    def end(self) -> None:
        """Wake every waiter, now and later. May be repeated."""
        with self._lock:
            self._ended = True
            listeners, self._listeners = self._listeners, []
        self._events.set(self._end)
        self._events.set(self._read)  # For those that wait on the handle.
        _call_all(listeners)

    def wait_for_end(self) -> Callable[[float], None]:
        """Return a function that waits for the given seconds, or until `end`."""
        return self._events.waiter(self._end)

    def close(self) -> None:
        """Close the events. No thread may wait any more."""
        self._forget(None)
        self._events.close(self._read)
        self._events.close(self._end)

    def _fired(self) -> None:
        with self._lock:
            listeners, self._listeners = self._listeners, []
            if self._watch is not None:
                self._spent.append(self._watch)
                self._watch = None
        # The task may be cancelled before it receives, so keep the event set for the next one.
        self._events.set(self._read)
        _call_all(listeners)

    def _forget(self, listener: Callable[[], None] | None) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)
            cancels, self._spent = self._spent, []
            if not self._listeners and self._watch is not None:
                cancels.append(self._watch)
                self._watch = None
        for cancel in cancels:  # Without the lock, as it waits for `_fired` to end.
            cancel()


class Room:
    """A waitable that is set when sending should be tried again: after 1 ms, then 2, up to 16."""

    def __init__(self, wait_for_end: Callable[[float], None]) -> None:
        self._wait_for_end = wait_for_end
        self._delay = _SHORTEST

    def fileno(self) -> int:
        """Raise `OSError`: no event stands for room."""
        raise OSError(errno.ENOTSUP, "Wintun has no event for room in the ring")

    def wait(self, timeout: float | None) -> None:
        """Wait until another try is due, or until the end, at most `timeout` seconds."""
        delay = self._next_delay()
        self._wait_for_end(delay if timeout is None else min(timeout, delay))

    def notify(self, loop: "asyncio.AbstractEventLoop", callback: Callable[[], None]) -> Cancel:
        """Make `loop` call `callback` when another try is due."""
        return loop.call_later(self._next_delay(), callback).cancel

    def hold(self, held: bool) -> None:
        """Do nothing: a session keeps no packets that were sent."""

    def found(self) -> None:
        """Make the next wait short again, as the ring had room."""
        self._delay = _SHORTEST

    def _next_delay(self) -> float:
        delay = self._delay
        self._delay = min(delay * 2, _LONGEST)
        return delay


def _call_all(listeners: list[Callable[[], None]]) -> None:
    for listener in listeners:
        listener()
