"""Events by Linux' eventfd, as the contract library uses them there, with the interface of the Windows events."""

import os
import select
import sys
import threading
import time
from collections.abc import Callable

assert sys.platform == "linux"

__all__ = ["EventFds"]


class EventFds:
    """`Events` of threepipe.platforms.windows.waiting; it also counts open events and watches."""

    def __init__(self) -> None:
        self._lasting: set[int] = set()  # Events that stay set until they are reset.
        self.open: set[int] = set()
        self.watches = 0
        self.most_watches = 0

    def create(self) -> int:
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lasting.add(event)
        self.open.add(event)
        return event

    def duplicate(self, event: int) -> int:
        copy = os.dup(event)
        self.open.add(copy)
        return copy

    def set(self, event: int) -> None:
        os.eventfd_write(event, 1)

    def reset(self, event: int) -> None:
        self._take(event)

    def close(self, event: int) -> None:
        self.open.remove(event)
        self._lasting.discard(event)
        os.close(event)

    def waiter(self, *events: int) -> Callable[[float], None]:
        def wait(seconds: float) -> None:
            self._wait(events, seconds)

        return wait

    def watch(self, event: int, timeout: float, fired: Callable[[], None]) -> Callable[[], None]:
        cancelled = self.create()
        self.watches += 1
        self.most_watches = max(self.watches, self.most_watches)

        def run() -> None:
            if self._wait((cancelled, event), timeout) != cancelled:
                fired()

        thread = threading.Thread(target=run)
        thread.start()

        def cancel() -> None:
            self.set(cancelled)
            thread.join()
            self.close(cancelled)
            self.watches -= 1

        return cancel

    def _wait(self, events: tuple[int, ...], seconds: float) -> int | None:
        """Return the event that woke the wait, the first in the given order; None after the timeout."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        for event in events:
            poll.register(event, select.POLLIN)
        while True:
            ready = {event for event, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
            for event in events:
                # Of several waiters, one takes it, as an auto-reset event wakes only one.
                if event in ready and (event in self._lasting or self._take(event)):
                    return event
            if time.monotonic() >= deadline:
                return None

    def _take(self, event: int) -> bool:
        try:
            os.eventfd_read(event)
        except BlockingIOError:
            return False
        return True
