"""The filter that simulates a bad network. It reads the clock and waits; `scheduler` decides about the packets."""

import math
import threading
import time

from threepipe.bundle import Bundle
from threepipe.endpoint import Endpoint, Filter
from threepipe.errors import EndpointEnded, SessionClosed
from threepipe.filters.impairment import Impairment, Towards
from threepipe.filters.scheduler import ImpairmentCounts, Scheduler
from threepipe.session import SessionStatistics

__all__ = ["Impair"]

_MAX_PACKETS = 1024  # In a bundle; more than the packets of a received bundle of superpackets, so that none pile up.
_SHORT_WAIT = 0.002  # Seconds. For shorter waits an endpoint's timeout, rounded up to milliseconds, is too coarse.
_SLEEP = 0.00025  # Seconds slept at a time in such a wait; a packet that arrives meanwhile is late by up to that.
_MAX_WAIT = 3600.0  # Seconds waited at a time, as the system refuses timeouts of days.


class Impair(Filter):
    """An endpoint behind a bad network: packets received from it are delayed, lost, duplicated or corrupted.

    Packets sent to it pass unchanged. For both directions of a pipe, use one around each end:
    `pipe(Impair(a, bad, towards="right"), Impair(b, bad, towards="left"))`.
    """

    def __init__(self, inner: Endpoint, impairment: Impairment, *, towards: Towards) -> None:
        """`towards`: the end of the pipe that received packets go to. Raises `InvalidSetting`."""
        super().__init__(inner)
        self._scheduler = Scheduler(impairment, towards)
        self._lock = threading.Lock()  # Guards the scheduler and the counts.
        self._closed = threading.Event()
        self._end: EndpointEnded | None = None
        self._packets = self._bytes = self._bundles = 0

    @property
    def counts(self) -> ImpairmentCounts:
        """The counts so far, also after `close`."""
        with self._lock:
            return self._scheduler.counts

    @property
    def waiting(self) -> int:
        """The number of packets on their way."""
        with self._lock:
            return len(self._scheduler)

    @property
    def statistics(self) -> SessionStatistics:
        """The inner endpoint's counts, except that only packets that came through count as received."""
        with self._lock:
            packets, size, bundles = self._packets, self._bytes, self._bundles
        return self.inner.statistics._replace(received_packets=packets, received_bytes=size, received_bundles=bundles)

    def receive(self, timeout: float | None = None) -> Bundle:
        """Wait for the next packets that are due; return up to 1024, in memory of their own.

        Raises as the inner endpoint does, but `EndpointEnded` only after the last packet on its way.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            # In every round, as a packet's delay starts when it is fetched.
            self._fetch(0)
            now = time.monotonic()
            with self._lock:
                bundle = self._due(now)
                next_due = self._scheduler.next_due
            if bundle or (deadline is not None and deadline <= now):
                return bundle
            if self._end is not None and next_due is None:
                raise self._end
            self._wait(min([_MAX_WAIT, *[moment - now for moment in (deadline, next_due) if moment is not None]]))

    def _fetch(self, timeout: float) -> None:
        """Schedule the packets that the inner endpoint has, or gets within `timeout` seconds."""
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

    def _due(self, now: float) -> Bundle:
        bundle = Bundle.of_views(self._scheduler.take(now, _MAX_PACKETS))
        if bundle:
            self._packets += len(bundle)
            self._bytes += bundle.nbytes
            self._bundles += 1
        return bundle

    def _wait(self, seconds: float) -> None:
        """Wait until a packet comes in, this is closed, or `seconds` are nearly over."""
        if self._end is not None:
            self._closed.wait(seconds)
        elif seconds < _SHORT_WAIT:
            self._closed.wait(min(seconds, _SLEEP))
        else:
            # Whole milliseconds less one; the rest is a short wait.
            self._fetch(math.floor(seconds * 1000 - 1) / 1000)

    def close(self) -> None:
        """Close the inner endpoint. Packets on their way are lost, and every waiter gets `SessionClosed`."""
        self._closed.set()
        self.inner.close()
