"""The scheduler of an impaired line: which packets leave it, and when. The caller passes the time; nothing here waits.

`impairment` explains the settings.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from threepipe.core.packet import MIN_HEADER, Packet
from threepipe.filters.impairment import Impairment, Towards

__all__ = ["ImpairmentCounts", "Scheduler"]

_QUEUE = 1000  # Packets that wait for the line if no limit is set: the txqueuelen of Linux's interfaces.
_MEMORY = 1 << 28  # Bytes that all waiting packets take at most: two seconds at 1 Gbit/s.
_OVERHEAD = 256  # Bytes that a waiting packet takes beyond its length, about.

_Waiting: TypeAlias = tuple[float, int, bytearray]
"""When a packet is due, a number that keeps packets due at one time in order, and the packet.

A plain tuple, as a named one makes scheduling an eighth slower.
"""


class ImpairmentCounts(NamedTuple):
    """Counts of impaired packets. Packets put + duplicated = lost + overflowed + taken + waiting."""

    lost: int = 0
    duplicated: int = 0
    """Copies made."""
    reordered: int = 0
    """Packets that overtook another one. Skipping the delay while no other packet is on its way does not count."""
    corrupted: int = 0
    overflowed: int = 0
    """Packets dropped because the limit or the memory was used up."""


class Scheduler:
    """An impaired line for one direction. Times are seconds of any clock that never goes back. Not thread-safe.

    Waiting packets take 256 MiB at most, whatever the limit.
    """

    def __init__(self, impairment: Impairment, towards: Towards) -> None:
        """`towards` makes the random choices of the two directions differ. Raises `InvalidSetting`."""
        self._settings = impairment.checked()
        # A seed of text and the method random() give the same numbers in every version of Python.
        self._random = random.Random(f"{impairment.seed} {towards}").random
        self._waiting: list[_Waiting] = []  # A heap.
        self._number = 0
        self._size = 0  # Bytes of memory that the waiting packets take.
        self._line: deque[float] = deque()  # When each packet that waits for the line will have left it.
        self._line_free = -math.inf  # When the line becomes idle; in the past if a burst may pass.
        self._latest = -math.inf  # When the last packet in order is due.
        self._lost = self._duplicated = self._reordered = self._corrupted = self._overflowed = 0

    def __len__(self) -> int:
        """Return the number of waiting packets."""
        return len(self._waiting)

    @property
    def counts(self) -> ImpairmentCounts:
        """The counts so far."""
        return ImpairmentCounts(self._lost, self._duplicated, self._reordered, self._corrupted, self._overflowed)

    @property
    def next_due(self) -> float | None:
        """The time when the next packet is due; None while no packet waits."""
        if not self._waiting:
            return None
        due, _, _ = self._waiting[0]
        return due

    def put(self, packets: Iterable[Packet], now: float) -> None:
        """Schedule copies of `packets`, which arrive at the line at `now` in this order."""
        settings = self._settings
        for packet in packets:
            if self._happens(settings.loss):
                self._lost += 1
                continue
            self._add(packet, now)
            if self._happens(settings.duplicate):
                self._duplicated += 1
                self._add(packet, now)

    def take(self, now: float, limit: int) -> list[memoryview]:
        """Remove and return the packets that are due at `now`, in order, `limit` of them at most."""
        waiting = self._waiting
        taken: list[memoryview] = []
        while waiting and len(taken) < limit:
            due, _, packet = waiting[0]
            if due > now:
                break
            heapq.heappop(waiting)
            self._size -= len(packet) + _OVERHEAD
            taken.append(memoryview(packet))
        return taken

    def _happens(self, probability: float) -> bool:
        # random() is always below 1, so a probability of 1 is certainty.
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
        due = self._leave_line(len(copy), now)
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
        """Flip one bit behind the IP header, if the packet is longer than that."""
        version = packet[0] >> 4 if packet else 4
        header = max(MIN_HEADER[4], (packet[0] & 0x0F) * 4) if packet and version == 4 else MIN_HEADER[6]
        if (size := len(packet) - header) > 0:
            bit = int(self._random() * size * 8)
            packet[header + bit // 8] ^= 1 << bit % 8
            self._corrupted += 1

    def _leave_line(self, size: int, now: float) -> float:
        """Occupy the line with `size` bytes that arrive at `now`, and return when they will have left it."""
        settings = self._settings
        if not settings.rate:
            return now
        # A full bucket equals a line that was idle earlier by the time of a burst.
        start = max(self._line_free, now - settings.burst * 8 / settings.rate)
        self._line_free = start + size * 8 / settings.rate
        left = max(self._line_free, now)
        if settings.limit is None:
            self._line.append(left)
        return left

    def _delay(self) -> float:
        delay, jitter = self._settings.delay, self._settings.jitter
        return max(delay + jitter * (2 * self._random() - 1), 0.0) if jitter else delay
