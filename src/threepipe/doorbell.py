"""Doorbell: a flag that threads, selectors and event loops can wait for. Knows nothing of packets."""

import selectors
import socket
import threading

__all__ = ["Doorbell"]


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

    def ring(self, *, for_ever: bool = False) -> None:
        """Set it: every waiter wakes, now and later, until somebody clears it; `for_ever`, nobody can."""
        with self._lock:
            self._stuck = self._stuck or for_ever
            if not self._rung:
                self._rung = True
                self._writer.send(b"\0")

    def clear(self) -> None:
        with self._lock:
            if self._rung and not self._stuck:
                self._rung = False
                self._reader.recv(1)

    def fileno(self) -> int:
        return self._reader.fileno()

    def wait(self, timeout: float | None) -> None:
        """Until it is set, or `timeout` seconds (None: for ever) are over."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            selector.select(timeout)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
