"""Watch: something to wait for that is made of other files and a bell. Knows nothing of packets."""

import selectors
from collections.abc import Callable
from typing import TYPE_CHECKING

from threepipe.doorbell import Doorbell
from threepipe.notify import notify_readable
from threepipe.pump import HasFileno

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["Watch"]


class Watch:
    """Readable, and returning from `wait`, when one of its files is ready or its bell rings. Thread-safe.

    Files may come and go while somebody waits.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
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
        """Until something is ready, or `timeout` seconds (None: for ever) are over."""
        self._selector.select(timeout)

    def notify(self, loop: "AbstractEventLoop", callback: Callable[[], None]) -> Callable[[], None]:
        """Have `loop` call `callback` while it is set; what it returns takes that back. Raises as `fileno` does."""
        return notify_readable(self.fileno(), loop, callback)

    def close(self) -> None:
        self._selector.close()
        self._bell.close()
