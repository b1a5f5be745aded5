"""Taps: filters at both ends of a pipe that show its packets to sinks. This file knows no file format.

Sinks come and go while the pipe runs. Without sinks the pipe may bypass the taps.
"""

import logging
import threading
import time

from threepipe.backend import INBOUND, OUTBOUND, CapturedBundle, Sink
from threepipe.bundle import Bundle
from threepipe.endpoint import Endpoint, Filter, direct_session
from threepipe.pump import interrupt
from threepipe.session import Session

__all__ = ["Tap", "Taps"]

_log = logging.getLogger("threepipe.capture")


class Taps:
    """The sinks of one pipe, and the taps at both its ends. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taps: list[Tap] = []
        self.sinks: tuple[Sink, ...] = ()
        """The functions that get each bundle; `add` and `remove` change them."""

    def around(self, left: Endpoint, right: Endpoint) -> "tuple[Tap, Tap]":
        """Take over both ends of a pipe and return the taps to use in their place.

        Directions are those of an adapter at the left: packets received from the left, which the system sent, are
        outbound, and those from the right inbound.
        """
        taps = Tap(left, self, OUTBOUND), Tap(right, self, INBOUND)
        self._taps += taps
        return taps

    def add(self, sink: Sink) -> None:
        """Show all packets to `sink` from now on. If it raises, that is logged and the sink removed."""
        with self._lock:
            self.sinks += (sink,)
            # A pipe bypasses the taps only if it has asked both. Interrupting a session that no pipe uses would leave
            # it awake for no reason.
            passed_by = bool(self._taps) and all(tap.passed_by for tap in self._taps)
            for tap in self._taps:
                tap.passed_by = False
        if passed_by:
            session = direct_session(self._taps[0].inner)
            if session is not None:
                interrupt(session)

    def remove(self, sink: Sink) -> None:
        """Show no more packets to `sink`, except those that another thread shows it right now. May be repeated."""
        with self._lock:
            self.sinks = tuple([other for other in self.sinks if other != sink])

    def forget(self, tap: "Tap") -> None:
        """Forget a tap that was closed."""
        with self._lock:
            self._taps = [other for other in self._taps if other is not tap]

    def let_by(self, tap: "Tap") -> Session | None:
        """Return the session that a pipe may use in place of `tap`; None while the pipe has sinks."""
        with self._lock:
            session = None if self.sinks else direct_session(tap.inner)
            tap.passed_by = session is not None
            return session

    def show(self, bundle: CapturedBundle) -> None:
        """Call every sink."""
        for sink in self.sinks:
            try:
                sink(bundle)
            except Exception as error:
                _log.warning("a capture was ended by its error: %s", error)
                self.remove(sink)


class Tap(Filter):
    """An endpoint that shows the packets received from it to the sinks."""

    def __init__(self, inner: Endpoint, taps: Taps, direction: int) -> None:
        super().__init__(inner)
        self._taps = taps
        self._direction = direction
        self.passed_by = False
        """True while a pipe may bypass this tap."""

    @property
    def direct(self) -> Session | None:
        """The session that a pipe may use in place of this tap; None while the pipe has sinks."""
        return self._taps.let_by(self)

    def receive(self, timeout: float | None = None) -> Bundle:
        """Receive from the inner endpoint and show the packets to the sinks."""
        self.passed_by = False
        bundle = self.inner.receive(timeout)
        if self._taps.sinks and bundle:
            self._taps.show(CapturedBundle(self._direction, list(bundle), time.time_ns()))
        return bundle

    def close(self) -> None:
        """Close the inner endpoint."""
        self.inner.close()
        self._taps.forget(self)
