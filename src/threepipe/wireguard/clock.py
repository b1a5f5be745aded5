"""The clock of keys and timers: it never jumps, and it counts the time in which the machine is suspended.

A keypair that slept for an hour is an hour old: its peer has wiped it. `time.monotonic` is not such a clock everywhere:

- Linux has CLOCK_BOOTTIME (clock_gettime(2)); its CLOCK_MONOTONIC, and so `time.monotonic`, stops in suspend.
- On macOS `time.monotonic` stops too (mach_absolute_time), while CLOCK_MONOTONIC goes on (clock_gettime(3)).
- On Windows `time.monotonic` goes on, by GetTickCount64 or, from Python 3.13 on, by QueryPerformanceCounter.
- The other systems differ; CLOCK_BOOTTIME is used where there is one.

Waits in the kernel still stop in suspend. So no thread waits for longer than `LONGEST_WAIT` at a time for a timer.
"""

import time
from collections.abc import Callable
from functools import partial

__all__ = ["LONGEST_WAIT", "now"]

LONGEST_WAIT = 5.0
"""Seconds. After a suspension, what became due meanwhile is done that late at most."""


def _clock() -> Callable[[], float]:
    read: Callable[[int], float] | None = getattr(time, "clock_gettime", None)
    clock: int | None = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return time.monotonic if read is None or clock is None else partial(read, clock)


now: Callable[[], float] = _clock()
"""Return the seconds of this clock, which count from a moment that has no meaning."""
