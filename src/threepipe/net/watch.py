"""Watch: something to wait for that is made of other files and a bell. Knows nothing of packets."""

import selectors
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from threepipe.core.pump import HasFileno
from threepipe.net.doorbell import Doorbell, patience
from threepipe.net.lookout import Lookout
from threepipe.net.notify import notify_readable

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["Watch"]


class Watch:
    """Readable, and returning from `wait`, when one of its files is ready or its bell rings. Thread-safe.

    Files may come and go while somebody waits.
    """

    def __init__(self) -> None:
        self._selector = _selector()
        self._has_descriptor = hasattr(self._selector, "fileno")
        self._lookout = Lookout(self._look_out)
        self._bell = Doorbell()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self.ring, self.clear = self._bell.ring, self._bell.clear

    def watch(self, file: HasFileno, event: int) -> None:
        """Wait for `event` (of `selectors`) of `file` from now on; 0 for no longer."""
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
                self.ring(for_ever=True)  # A plain file, which epoll does not take: it is always ready.

    def fileno(self) -> int:
        """Raises `OSError` where the system has none for this: on Windows."""
        fileno = getattr(self._selector, "fileno", None)
        if fileno is None:
            raise OSError("this system has no descriptor for a set of others; use receive() with a timeout")
        number: int = fileno()
        return number

    def wait(self, timeout: float | None) -> None:
        """Until something is ready, or `timeout` seconds (None: for ever) are over; it may be less."""
        self._selector.select(patience(timeout))

    def notify(self, loop: "AbstractEventLoop", callback: Callable[[], None]) -> Callable[[], None]:
        """Have `loop` call `callback` once it is set, and perhaps again; what it returns takes that back."""
        if self._has_descriptor:
            return notify_readable(self.fileno(), loop, callback)
        return self._lookout.notify(loop, callback)

    def _look_out(self) -> None:
        self._selector.select()

    def close(self) -> None:
        self.ring(for_ever=True)  # The lookout leaves.
        self._lookout.close()
        self._selector.close()
        self._bell.close()


class _Select(selectors.SelectSelector):
    """A selector that can be changed while others wait in it, as the kernel's can: they wake, to look again."""

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
            if not self._waiting:  # While one is left who has not heard the bell, it goes on ringing for him.
                self._changed.clear()
            self._waiting += 1
        try:
            return super().select(timeout)
        except OSError:
            return []  # One of the sockets was closed meanwhile: whoever waits finds out when he looks.
        finally:
            with self._lock:
                self._waiting -= 1

    def close(self) -> None:
        super().close()
        self._changed.close()


def _selector() -> selectors.BaseSelector:
    """The system's best; what it lacks of a kernel's, if it is not one, is made up for."""
    if hasattr(selectors.DefaultSelector, "fileno"):
        return selectors.DefaultSelector()
    return _Select()
