"""Notifying an event loop of a ready descriptor or flag. Knows nothing of packets."""

import io
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["call_soon", "notify_readable"]


def notify_readable(fileno: int, loop: "AbstractEventLoop", callback: Callable[[], None]) -> Callable[[], None]:
    """Have `loop` call `callback` while a descriptor is readable. Return a function that cancels this.

    Not for Windows.
    """
    # A duplicate, as a loop takes one reader a descriptor and several tasks may wait for this one.
    duplicate = open(os.dup(fileno), "rb", 0)  # noqa: SIM115  # The returned function closes it.
    try:
        loop.add_reader(duplicate, callback)
    except BaseException:
        duplicate.close()
        raise
    return partial(_forget, loop, duplicate)


def call_soon(loop: "AbstractEventLoop", callback: Callable[[], None]) -> None:
    """Have `loop` call `callback`, from any thread; do nothing if the loop is closed, as no task waits in it."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return


def _forget(loop: "AbstractEventLoop", duplicate: io.FileIO) -> None:
    loop.remove_reader(duplicate)
    duplicate.close()
