"""Tap: looking at the packets of a pipe while they go through it; who looks, comes and goes. Knows no format.

As long as nobody looks, a tap is not in the way: a pump may go by it.
"""

import logging
import threading
import time

from threepipe.backend import INBOUND, OUTBOUND, Seen, Sink
from threepipe.bundle import Bundle
from threepipe.endpoint import Endpoint, Filter, direct_session
from threepipe.session import Session, interrupt

__all__ = ["Tap", "Taps"]

_log = logging.getLogger("threepipe.capture")


class Taps:
    """The sinks of one pipe, and the taps at both its ends. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taps: list[Tap] = []
        self.sinks: tuple[Sink, ...] = ()
        """What is called for each bundle; to be changed by `add` and `remove`."""

    def around(self, left: Endpoint, right: Endpoint) -> "tuple[Tap, Tap]":
        """Take over both ends of a pipe. Directions are those of an adapter at the left.

        What comes from it is outbound, for the system sent it there; what comes from the right is inbound.
        """
        taps = Tap(left, self, OUTBOUND), Tap(right, self, INBOUND)
        self._taps += taps
        return taps

    def add(self, sink: Sink) -> None:
        """Show all packets to `sink` from now on; one that raises is removed, and logged."""
        with self._lock:
            self.sinks += (sink,)
            # Both were asked for a shorter way, and so there may be a pump that goes by us. Interrupting another
            # session would leave it awake for no reason.
            passed_by = bool(self._taps) and all(tap.passed_by for tap in self._taps)
            for tap in self._taps:
                tap.passed_by = False
        if passed_by:
            session = direct_session(self._taps[0].inner)
            if session is not None:
                interrupt(session)

    def remove(self, sink: Sink) -> None:
        """Show it nothing more, but for what another thread is showing it just now. May be repeated."""
        with self._lock:
            self.sinks = tuple([other for other in self.sinks if other != sink])

    def forget(self, tap: "Tap") -> None:
        """It was closed: nothing goes by it any more."""
        with self._lock:
            self._taps = [other for other in self._taps if other is not tap]

    def let_by(self, tap: "Tap") -> Session | None:
        """The session that packets may go to without `tap` seeing them; None while somebody looks."""
        with self._lock:
            session = None if self.sinks else direct_session(tap.inner)
            tap.passed_by = session is not None
            return session

    def show(self, seen: Seen) -> None:
        for sink in self.sinks:
            try:
                sink(seen)
            except Exception as error:
                _log.warning("a capture ends early: %s", error)
                self.remove(sink)


class Tap(Filter):
    """An endpoint whose received packets are shown to those who look."""

    def __init__(self, inner: Endpoint, taps: Taps, direction: int) -> None:
        super().__init__(inner)
        self._taps = taps
        self._direction = direction
        self.passed_by = False
        """Whether somebody may be moving packets without us."""

    @property
    def direct(self) -> Session | None:
        return self._taps.let_by(self)

    def receive(self, timeout: float | None = None) -> Bundle:
        self.passed_by = False
        bundle = self.inner.receive(timeout)
        if self._taps.sinks and bundle:
            self._taps.show(Seen(self._direction, list(bundle), time.time_ns()))
        return bundle

    def close(self) -> None:
        self.inner.close()
        self._taps.forget(self)
