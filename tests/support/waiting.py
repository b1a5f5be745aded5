"""Waiting for changes that the kernel makes without a signal."""

import time
from collections.abc import Callable


def come_true(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Return True if `condition` becomes true in time. For changes that the kernel makes without a signal.

    The longer it takes, the less often it looks: a condition may start a program, which slows what it waits for.
    """
    start = time.monotonic()
    while not (true := condition()) and (waited := time.monotonic() - start) < seconds:
        time.sleep(min(max(0.01, waited / 5), 0.1))
    return true
