"""Waiting for what the kernel does in its own time."""

import time
from collections.abc import Callable


def come_true(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether `condition` is true before long: for what the kernel does in its own time, untold."""
    deadline = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return true
