"""How an event loop gets to know that something to wait for is set. Knows nothing of packets."""

import io
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["call_soon", "notify_readable"]


def notify_readable(fileno: int, loop: "AbstractEventLoop", callback: Callable[[], None]) -> Callable[[], None]:
    """Have `loop` call `callback` while a descriptor is readable; what it returns takes that back. Not on Windows."""
    # A descriptor of its own, for a loop knows one reader a descriptor and here several may wait.
    own = open(os.dup(fileno), "rb", 0)  # noqa: SIM115  # Closed by what is returned.
    try:
        loop.add_reader(own, callback)
    except BaseException:
        own.close()
        raise
    return partial(_forget, loop, own)


def call_soon(loop: "AbstractEventLoop", callback: Callable[[], None]) -> None:
    """Have `loop` call `callback`, from any thread; nothing where it was closed, for then nobody waits in it."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return


def _forget(loop: "AbstractEventLoop", own: io.FileIO) -> None:
    loop.remove_reader(own)
    own.close()
