"""`Watch`, which waits for several files and a doorbell as one, and `EndpointPort`, a port's part made of two."""

import selectors
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from threepipe.core.ends import End, HasFileno
from threepipe.net.doorbell import Doorbell, patience
from threepipe.net.lookout import Lookout
from threepipe.net.notify import notify_readable

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["EndpointPort", "Watch", "is_readable"]


def is_readable(file: HasFileno, timeout: float) -> bool:
    """Return True if `file` is readable within `timeout` seconds."""
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        return bool(selector.select(timeout))


class Watch:
    """Set while one of its files is ready or its doorbell is set. Thread-safe.

    Files may be added and removed while threads wait.
    """

    def __init__(self) -> None:
        self._selector = _selector()
        self._has_descriptor = hasattr(self._selector, "fileno")
        self._lookout = Lookout(self._look_out)
        self._bell = Doorbell()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self.ring, self.clear, self.hold = self._bell.ring, self._bell.clear, self._bell.hold

    def watch(self, file: HasFileno, event: int) -> None:
        """Wait for `event` (of `selectors`) of `file` from now on; 0 removes the file."""
        known = file.fileno() in self._selector.get_map()
        if not event:
            if known:
                self._selector.unregister(file)
        elif known:
            self._selector.modify(file, event)
        else:
            try:
                self._selector.register(file, event)
            except PermissionError:
                self.ring(for_ever=True)  # epoll refuses a plain file, which is always ready.

    def fileno(self) -> int:
        """Return a descriptor that is readable while this is set. Raise `OSError` on Windows, which has none."""
        fileno = getattr(self._selector, "fileno", None)
        if fileno is None:
            raise OSError("this system has no descriptor for a set of others; use receive() with a timeout")
        number: int = fileno()
        return number

    def wait(self, timeout: float | None) -> None:
        """Wait until this is set, `timeout` seconds (None: forever) at most; perhaps return earlier."""
        self._selector.select(patience(timeout))

    def notify(self, loop: "AbstractEventLoop", callback: Callable[[], None]) -> Callable[[], None]:
        """Have `loop` call `callback` while this is set, once or more. Return a function that cancels this."""
        if self._has_descriptor:
            return notify_readable(self.fileno(), loop, callback)
        return self._lookout.notify(loop, callback)

    def _look_out(self) -> None:
        self._selector.select()

    def close(self) -> None:
        """Close the descriptors. No thread may wait any more."""
        self.ring(for_ever=True)  # Ends the lookout's wait.
        self._lookout.close()
        self._selector.close()
        self._bell.close()


class EndpointPort:
    """The part that the ports of endpoints other than adapters share; they add `receive`, `send` and `stop`."""

    def __init__(self) -> None:
        self.readable = Watch()
        self.writable = Watch()

    def lend(self) -> End | None:
        """Lend nothing."""
        return None

    def wake(self) -> None:
        """Wake every waiter, now and later."""
        self.readable.ring(for_ever=True)
        self.writable.ring(for_ever=True)

    def dispose(self) -> None:
        """Close `readable` and `writable`."""
        self.readable.close()
        self.writable.close()


class _Select(selectors.SelectSelector):
    """A selector that can be changed while threads wait in it, as epoll can: they wake and look again."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._waiting = 0
        self._changed = Doorbell()
        super().register(self._changed, selectors.EVENT_READ)

    def register(self, fileobj: "int | HasFileno", events: int, data: object = None) -> selectors.SelectorKey:
        with self._lock:
            key = super().register(fileobj, events, data)
            self._tell()
        return key

    def unregister(self, fileobj: "int | HasFileno") -> selectors.SelectorKey:
        with self._lock:
            key = super().unregister(fileobj)
            self._tell()
        return key

    def modify(self, fileobj: "int | HasFileno", events: int, data: object = None) -> selectors.SelectorKey:
        with self._lock:
            super().unregister(fileobj)
            key = super().register(fileobj, events, data)
            self._tell()
        return key

    def _tell(self) -> None:
        if self._waiting:
            self._changed.ring()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        with self._lock:
            if not self._waiting:  # The bell goes on ringing for a thread that has not woken yet.
                self._changed.clear()
            self._waiting += 1
        try:
            return super().select(timeout)
        except OSError:
            return []  # One of the sockets was closed meanwhile; the waiting thread finds out when it looks.
        finally:
            with self._lock:
                self._waiting -= 1

    def close(self) -> None:
        super().close()
        self._changed.close()


def _selector() -> selectors.BaseSelector:
    """Return the system's best selector; if it is not the kernel's, one that allows changes while threads wait."""
    if hasattr(selectors.DefaultSelector, "fileno"):
        return selectors.DefaultSelector()
    return _Select()
