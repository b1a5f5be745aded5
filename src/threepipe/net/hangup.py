"""The departure of a reader, noticed while nothing is written. Knows neither packets nor captures."""

import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from threepipe.core.ends import HasFileno
from threepipe.net.doorbell import Doorbell

__all__ = ["on_hangup"]


@contextmanager
def on_hangup(file: HasFileno, left: Callable[[], None]) -> Iterator[None]:
    """Call `left`, in another thread, once nobody can read from the other end of `file` any more, while the block runs.

    `file` is the writing end of a pipe or a FIFO, or a connected socket; others have no reader that could leave.
    Without poll(2), as on Windows, only writing finds out.
    """
    system: Any = select  # Windows' has no poll.
    if not hasattr(system, "poll"):
        yield
        return
    bell = Doorbell()
    poll = system.poll()
    poll.register(bell, system.POLLIN)
    poll.register(file, system.POLLHUP)  # With POLLERR, which Linux reports for a pipe, it is reported in any case.

    def wait() -> None:
        if all(descriptor != bell.fileno() for descriptor, _ in poll.poll()):
            left()

    thread = threading.Thread(target=wait, name="threepipe-hangup")
    thread.start()
    try:
        yield
    finally:
        bell.ring()
        thread.join()
        bell.close()
