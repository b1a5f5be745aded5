"""Forked children of a test, with their threads left behind."""

import os
import signal
import traceback
import warnings
from collections.abc import Callable

__all__ = ["in_child"]

_SECONDS = 20


def in_child(work: Callable[[], str | None]) -> str:
    """Return the result of `work` in a forked child, or raise its exception. A child that hangs is killed."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads.
        child = os.fork()
    if not child:
        os.close(reader)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_SECONDS)
        try:
            said = work() or ""
        except BaseException:
            said = traceback.format_exc()
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}"
    return said
