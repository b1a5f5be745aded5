"""Dialer: makes the connection of an endpoint anew, in a thread, after it could not be made or has ended.

The pauses between attempts grow from `interval` to a minute, as the other end may be away for long. Each is a little
longer at random, so that the clients of a restarted listener do not return all at once. A packet from the other end
proves that it works again: attempts and pauses are counted from there. Knows nothing of sessions.
"""

import errno
import random
import selectors
import threading
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from threepipe.endpoints.connection import Connection
from threepipe.endpoints.request import RateLimitedLog
from threepipe.errors import EndpointError
from threepipe.net.doorbell import Doorbell
from threepipe.net.watch import Watch

__all__ = ["Dialer", "Retry"]

_LONGEST_PAUSE = 60.0  # Seconds.
_SPREAD = 1.25  # The most by which chance makes a pause longer.
_GRACE = 0.5  # Seconds, at closing, for an attempt to end.


class Retry(NamedTuple):
    """The limit and the pauses for connecting an endpoint again."""

    attempts: int | None
    """The most failed attempts in a row; None for any number."""
    interval: float = 1.0
    """Seconds before the first attempt."""

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row, without the part that is left to chance."""
        longest = max(self.interval, _LONGEST_PAUSE)
        return min(longest, self.interval * 2.0 ** min(failures, 64))


class Dialer:
    """The later connections of an endpoint. `StreamPort` calls it as it calls a `Listener`."""

    def __init__(self, dial: Callable[[], Connection], retry: Retry, log: RateLimitedLog) -> None:
        """`dial` returns a new connection or raises `EndpointError`; it may block."""
        self._dial, self._retry, self._log = dial, retry, log
        self._bell = Doorbell()
        self._closed = threading.Event()
        self._lock = threading.Lock()  # Guards the session and error that the thread hands over.
        self._made: Connection | None = None
        self._failure: Exception | None = None
        self._failures = 0
        self._thread = threading.Thread()

    def first(self) -> Connection | None:
        """Return the first connection, or None if it could not be made and is made later."""
        try:
            return self._dial()
        except EndpointError as error:
            self._start(partial(_same, error))
            return None

    def again(self) -> None:
        """Make the first connection later, in place of another process that could not make it."""
        self._start(partial(_same, EndpointError(errno.ENOTCONN, "the process before had no connection")))

    def watch(self, readable: Watch) -> None:
        readable.watch(self._bell, selectors.EVENT_READ)

    def accept(self, readable: Watch) -> bool:
        return False

    def choose(self, connection: Connection | None, readable: Watch) -> Connection | None:
        """Return `connection`, the present one, or else a new one if it is made. Raise the failure of the last try."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if connection is None and self._made is not None:
                connection, self._made = self._made, None
                self._bell.clear()
        return connection

    def retire(self, connection: Connection, why: str) -> None:
        """Close a connection that has ended, for the reason `why`, and make a new one, without waiting for either."""
        if connection.established:
            self._failures = 0
        self._start(partial(_end, connection, why))

    def _start(self, find_reason: Callable[[], EndpointError]) -> None:
        # A daemon, as an attempt that waits for the network must not keep this program from ending.
        self._thread = threading.Thread(target=self._run, args=(find_reason,), name="threepipe-dialer", daemon=True)
        self._thread.start()

    def _run(self, find_reason: Callable[[], EndpointError]) -> None:
        try:
            error = find_reason()
            while self._pause(error):
                try:
                    self._hand_over(self._dial())
                    return
                except EndpointError as another:
                    error = another
        except Exception as defect:  # The session's next call raises it.
            self._fail(defect)

    def _pause(self, error: EndpointError) -> bool:
        """Wait before the next attempt; return False if there is none."""
        if self._closed.is_set():
            return False
        if self._retry.attempts is not None and self._failures >= self._retry.attempts:
            self._fail(EndpointError(error.errno, f"{error.strerror}; gave up after {self._failures} more attempts"))
            return False
        pause = self._retry.pause(self._failures) * random.uniform(1, _SPREAD)
        self._failures += 1
        self._log.warn("connection", f"{error.strerror}; connecting again in {pause:.1f} s")
        return not self._closed.wait(pause)

    def _hand_over(self, connection: Connection) -> None:
        with self._lock:
            if not self._closed.is_set():
                self._made = connection
                self._bell.ring()
                return
        connection.close()

    def _fail(self, failure: Exception) -> None:
        with self._lock:
            if not self._closed.is_set():
                self._failure = failure
                self._bell.ring()

    def close(self) -> None:
        with self._lock:
            self._closed.set()
        if self._thread.ident is not None:
            self._thread.join(_GRACE)
        with self._lock:
            if self._made is not None:
                self._made.close()
        self._bell.close()


def _same(error: EndpointError) -> EndpointError:
    return error


def _end(connection: Connection, why: str) -> EndpointError:
    """Close a connection that has ended, and return how it ended: for the reason `why`, or as its program says."""
    why = why or connection.stream.failure() or "disconnected"
    connection.close()
    return EndpointError(errno.EPROTO, f"{connection.name} {why}")
