"""Waiting for changes that the kernel makes without a signal."""

import time
from collections.abc import Callable


def come_true(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Return True if `condition` becomes true in time. For changes that the kernel makes without a signal."""
    deadline = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return true
