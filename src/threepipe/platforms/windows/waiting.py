"""What a session on Windows is waited for by: packets to receive, and room to send. Knows no packets and no DLL.

An event, here, is the number of a Windows event object. `Events` is what has to be asked of a system;
the one system that has them is in `events`.
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
"""Seconds after which whoever waits looks anyway: drivers up to 0.14.1 lose a wake-up now and then.

It is also how long Ctrl-C may take, which interrupts no wait on Windows.
"""

_SHORTEST, _LONGEST = 0.001, 0.016  # Seconds; no event tells when a full ring has room again.

Cancel = Callable[[], None]


class Events(Protocol):
    """Event objects of the system. Thread-safe."""

    def create(self) -> int:
        """A new event that stays set until it is reset; not set."""

    def duplicate(self, event: int) -> int:
        """Another handle of the same event, to be closed apart."""

    def set(self, event: int) -> None: ...

    def reset(self, event: int) -> None: ...

    def close(self, event: int) -> None: ...

    def waiter(self, *events: int) -> Callable[[float], None]:
        """What waits until one of `events` is set, or so many seconds; it resets the auto-reset one that woke it."""

    def watch(self, event: int, timeout: float, fired: Callable[[], None]) -> Cancel:
        """Call `fired` once, on a thread of the system's, when `event` is set or `timeout` seconds are over.

        Has to be cancelled even so; once that has returned, `fired` neither runs nor will.
        """


class Arrival:
    """Set when packets may have come, and for ever once `end` was called.

    The driver's event is reset by the first one whom it wakes. So whoever receives empties the ring, or
    sets the event `again`; and whoever finds nothing calls `clear`, and looks once more before he waits.
    """

    def __init__(self, events: Events, read_event: int) -> None:
        """`read_event` is the session's, which is gone at its end; waiting may outlast that, on a handle of its own."""
        self._events = events
        self._read = events.duplicate(read_event)
        self._end = events.create()
        self._wait = events.waiter(self._end, self._read)
        self._lock = threading.Lock()
        self._ended = False
        self._was_set_again = False  # Since anybody was woken.
        self._listeners: list[Callable[[], None]] = []
        self._watch: Cancel | None = None  # While a watch runs that has not fired.
        self._spent: list[Cancel] = []  # Those of watches that have.

    def fileno(self) -> int:
        """The handle of an event, for the system's own waiting functions; waiting resets it."""
        return self._read

    def wait(self, timeout: float | None) -> None:
        """Until packets came or the end, at most `timeout` seconds, and not longer than `PATIENCE`."""
        self._wait(PATIENCE if timeout is None or timeout > PATIENCE else timeout)
        self._was_set_again = False

    def notify(self, loop: "asyncio.AbstractEventLoop", callback: Callable[[], None]) -> Cancel:
        """Have `loop` call `callback` once when it is set; to be cancelled by what is returned, even then.

        All that wait so share one watch of the system, which is there only while somebody does.
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
        """Be not set, after nothing was found; at the end it stays set."""
        self._events.reset(self._read)
        self._was_set_again = False
        if self._ended:  # After that, for the end may have come in between.
            self._events.set(self._read)

    def again(self) -> None:
        """Be set, for packets were left.

        Nothing is done where it was set before and woke nobody; whoever was woken just now will receive, and come here.
        """
        if not self._was_set_again:
            self._was_set_again = True
            self._events.set(self._read)

    def hold(self, held: bool) -> None:
        """Be set again after each packet that leaves others with the session."""
        if held:
            self.again()

    def end(self) -> None:
        """Wake everybody who waits, now and later; may be repeated."""
        with self._lock:
            self._ended = True
            listeners, self._listeners = self._listeners, []
        self._events.set(self._end)
        self._events.set(self._read)  # For who waits by the handle.
        _tell(listeners)

    def wait_for_end(self) -> Callable[[float], None]:
        """What waits so many seconds, and returns early at the end."""
        return self._events.waiter(self._end)

    def close(self) -> None:
        """Nobody may wait any more."""
        self._forget(None)
        self._events.close(self._read)
        self._events.close(self._end)

    def _fired(self) -> None:
        with self._lock:
            listeners, self._listeners = self._listeners, []
            if self._watch is not None:
                self._spent.append(self._watch)
                self._watch = None
        # A task that is told may be cancelled before it receives: what woke it is kept for the next one.
        self._events.set(self._read)
        _tell(listeners)

    def _forget(self, listener: Callable[[], None] | None) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)
            cancels, self._spent = self._spent, []
            if not self._listeners and self._watch is not None:
                cancels.append(self._watch)
                self._watch = None
        for cancel in cancels:  # Without the lock, for it waits for `_fired` to end.
            cancel()


class Room:
    """Set when sending should be tried again, which is after 1 ms at first, then 2, up to 16."""

    def __init__(self, wait_for_end: Callable[[float], None]) -> None:
        self._wait_for_end = wait_for_end
        self._delay = _SHORTEST

    def fileno(self) -> int:
        """Raises `OSError`: there is nothing that becomes ready."""
        raise OSError(errno.ENOTSUP, "Wintun has no event for room in the ring")

    def wait(self, timeout: float | None) -> None:
        """Until another try is due, or the end, at most `timeout` seconds."""
        delay = self._next_delay()
        self._wait_for_end(delay if timeout is None else min(timeout, delay))

    def notify(self, loop: "asyncio.AbstractEventLoop", callback: Callable[[], None]) -> Cancel:
        """Have `loop` call `callback` when another try is due."""
        return loop.call_later(self._next_delay(), callback).cancel

    def hold(self, held: bool) -> None:
        """Do nothing: what is sent is never kept."""

    def found(self) -> None:
        """There was room: the next wait is short again."""
        self._delay = _SHORTEST

    def _next_delay(self) -> float:
        delay = self._delay
        self._delay = min(delay * 2, _LONGEST)
        return delay


def _tell(listeners: list[Callable[[], None]]) -> None:
    for listener in listeners:
        listener()
