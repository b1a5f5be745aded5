"""Scheduler: which packets come out of an impaired line, and when. Sans I/O: it is told the time, and never waits.

What the settings mean stands in `impairment`.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from threepipe.core.packet import MIN_HEADER, Packet
from threepipe.filters.impairment import Direction, Impairment

__all__ = ["ImpairmentCounts", "Scheduler"]

_QUEUE = 1000  # Packets that wait for the line where no limit is given: the txqueuelen of Linux's interfaces.
_MEMORY = 1 << 28  # Bytes that all waiting packets take at most: two seconds of 1 Gbit/s.
_OVERHEAD = 256  # Bytes that keeping a packet costs beside its own, about.


class ImpairmentCounts(NamedTuple):
    """Packets that something happened to. Those put and `duplicated` are those lost, overflowed, taken and waiting."""

    lost: int = 0
    duplicated: int = 0
    """Copies that were made."""
    reordered: int = 0
    """Those that overtook another one; to skip the delay while nothing is on its way is not to overtake."""
    corrupted: int = 0
    overflowed: int = 0
    """Dropped because as many wait already as may, or as there is memory for."""


class Scheduler:
    """One direction. Times are seconds of any one clock that does not go backwards. Not thread-safe.

    The packets that wait take 256 MiB at most, whatever the limit.
    """

    def __init__(self, impairment: Impairment, towards: Direction) -> None:
        """`towards` tells the random choices of the two directions apart. Raises `InvalidSetting`."""
        self._settings = impairment.checked()
        # Seeds that are text, and random() of all methods, are the same in every version of Python.
        self._random = random.Random(f"{impairment.seed} {towards}").random
        self._waiting: list[tuple[float, int, bytearray]] = []  # A heap: when due, a number that keeps the order.
        self._number = 0
        self._size = 0  # Bytes of memory that those waiting take.
        self._line: deque[float] = deque()  # When each that waits for the line will have passed it.
        self._line_free = -math.inf  # When the line has nothing to do any more; bursts begin in the past.
        self._latest = -math.inf  # When the last of those in order is due.
        self._lost = self._duplicated = self._reordered = self._corrupted = self._overflowed = 0

    def __len__(self) -> int:
        """Packets that wait."""
        return len(self._waiting)

    @property
    def counts(self) -> ImpairmentCounts:
        return ImpairmentCounts(self._lost, self._duplicated, self._reordered, self._corrupted, self._overflowed)

    @property
    def next_due(self) -> float | None:
        """When there will be something to take; None while nothing waits."""
        return self._waiting[0][0] if self._waiting else None

    def put(self, packets: Iterable[Packet], now: float) -> None:
        """Take copies of `packets`, which have come to the line in that order, at `now`."""
        settings = self._settings
        for packet in packets:
            if self._happens(settings.loss):
                self._lost += 1
                continue
            self._add(packet, now)
            if self._happens(settings.duplicate):
                self._duplicated += 1
                self._add(packet, now)

    def take(self, now: float, most: int) -> list[memoryview]:
        """Those that are due at `now`, in the order in which they come out; `most` at once."""
        waiting = self._waiting
        taken: list[memoryview] = []
        while waiting and waiting[0][0] <= now and len(taken) < most:
            packet = heapq.heappop(waiting)[2]
            self._size -= len(packet) + _OVERHEAD
            taken.append(memoryview(packet))
        return taken

    def _happens(self, probability: float) -> bool:
        # random() is below 1: what is certain always happens.
        return probability > 0 and self._random() < probability

    def _add(self, packet: Packet, now: float) -> None:
        settings = self._settings
        cost = len(packet) + _OVERHEAD
        if self._size + cost > _MEMORY or self._is_full(now):
            self._overflowed += 1
            return
        copy = bytearray(packet)
        if self._happens(settings.corrupt):
            self._corrupt(copy)
        due = self._passed(len(copy), now)
        if not self._happens(settings.reorder):
            due = max(due + self._delay(), self._latest)
        if due < self._latest:
            self._reordered += 1
        else:
            self._latest = due
        self._number += 1
        heapq.heappush(self._waiting, (due, self._number, copy))
        self._size += cost

    def _is_full(self, now: float) -> bool:
        if self._settings.limit is not None:
            return len(self._waiting) >= self._settings.limit
        while self._line and self._line[0] <= now:
            self._line.popleft()
        return len(self._line) >= _QUEUE

    def _corrupt(self, packet: bytearray) -> None:
        """Turn one bit over, if there are any behind the IP header."""
        version = packet[0] >> 4 if packet else 4
        header = max(MIN_HEADER[4], (packet[0] & 0x0F) * 4) if packet and version == 4 else MIN_HEADER[6]
        if (size := len(packet) - header) > 0:
            bit = int(self._random() * size * 8)
            packet[header + bit // 8] ^= 1 << bit % 8
            self._corrupted += 1

    def _passed(self, size: int, now: float) -> float:
        """When `size` bytes that come at `now` will have passed the line, which they occupy from now on."""
        settings = self._settings
        if not settings.rate:
            return now
        # A full bucket is a line that was free so much earlier: what it is ahead passes at once.
        start = max(self._line_free, now - settings.burst * 8 / settings.rate)
        self._line_free = start + size * 8 / settings.rate
        passed = max(self._line_free, now)
        if settings.limit is None:
            self._line.append(passed)
        return passed

    def _delay(self) -> float:
        delay, jitter = self._settings.delay, self._settings.jitter
        return max(delay + jitter * (2 * self._random() - 1), 0.0) if jitter else delay
