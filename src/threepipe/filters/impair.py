"""Impair: the filter that makes a good network bad. Owns the clock and the waiting; `scheduler` says what happens."""

import math
import threading
import time

from threepipe.bundle import Bundle
from threepipe.endpoint import Endpoint, Filter
from threepipe.errors import EndpointEnded, SessionClosed
from threepipe.filters.impairment import Direction, Impairment
from threepipe.filters.scheduler import ImpairmentCounts, Scheduler
from threepipe.session import SessionStatistics

__all__ = ["Impair"]

_MOST = 1024  # Packets given out at once: more than a bundle of superpackets comes to, so that none pile up.
_SHORT = 0.002  # Seconds: below this an endpoint's time-out, which is rounded up to milliseconds, is too coarse.
_SLICE = 0.00025  # Seconds slept at a time then, for a packet that arrives meanwhile is late by so much.
_LONG = 3600.0  # Seconds waited at a time, as time-outs of days are refused.


class Impair(Filter):
    """An endpoint whose packets come through a bad network: what is received is late, lost, doubled or damaged.

    What is sent to it passes unchanged. For both directions of a pipe there is one around each end:
    `pipe(Impair(a, bad, towards="right"), Impair(b, bad, towards="left"))`.
    """

    def __init__(self, inner: Endpoint, impairment: Impairment, *, towards: Direction) -> None:
        """`towards` is where what is received goes, as seen in the pipe. Raises `InvalidSetting`."""
        super().__init__(inner)
        self._scheduler = Scheduler(impairment, towards)
        self._lock = threading.Lock()  # Of the scheduler and the counts.
        self._closed = threading.Event()
        self._end: EndpointEnded | None = None
        self._packets = self._bytes = self._bundles = 0

    @property
    def counts(self) -> ImpairmentCounts:
        """What happened so far, also after closing."""
        with self._lock:
            return self._scheduler.counts

    @property
    def statistics(self) -> SessionStatistics:
        """The inner endpoint's, but of what was received that which came through: `counts` tells the difference."""
        with self._lock:
            received = self._packets, self._bytes, self._bundles
        return SessionStatistics(*received, *self.inner.statistics[3:])

    def receive(self, timeout: float | None = None) -> Bundle:
        """Wait for what is due next; up to 1024 packets at once, memory of their own.

        Raises as the inner endpoint's, but `EndpointEnded` only when all that was on its way has come.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            # First, and every time: when a packet comes in is when its delay begins.
            self._fetch(0)
            now = time.monotonic()
            with self._lock:
                bundle = self._take(now)
                next_due = self._scheduler.next_due
            if bundle or (deadline is not None and deadline <= now):
                return bundle
            if self._end is not None and next_due is None:
                raise self._end
            self._wait(min([_LONG, *[moment - now for moment in (deadline, next_due) if moment is not None]]))

    def _fetch(self, timeout: float) -> None:
        """Put what the inner endpoint has, or gets within `timeout` seconds, on the line."""
        if self._closed.is_set():
            raise SessionClosed("the session is closed")
        if self._end is not None:
            return
        try:
            with self.inner.receive(timeout) as bundle:
                if bundle:
                    with self._lock:
                        self._scheduler.put(bundle, time.monotonic())
        except EndpointEnded as end:
            self._end = end

    def _take(self, now: float) -> Bundle:
        bundle = Bundle.of_views(self._scheduler.take(now, _MOST))
        if bundle:
            self._packets += len(bundle)
            self._bytes += bundle.nbytes
            self._bundles += 1
        return bundle

    def _wait(self, seconds: float) -> None:
        """Until something comes in, this is closed, or `seconds` are nearly over: not longer than that."""
        if self._end is not None:
            self._closed.wait(seconds)
        elif seconds < _SHORT:
            self._closed.wait(min(seconds, _SLICE))
        else:
            # Whole milliseconds less one; the rest is slept in slices.
            self._fetch(math.floor(seconds * 1000 - 1) / 1000)

    def close(self) -> None:
        """Close the inner endpoint; what is on its way is lost, and every waiter gets `SessionClosed`."""
        self._closed.set()
        self.inner.close()
