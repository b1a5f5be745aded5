"""Waiting for processes that are not children of this one."""

import sys

assert sys.platform == "linux"

import errno
import os

__all__ = ["process_file"]


def process_file(number: int) -> int | None:
    """Return a descriptor that is readable once that process has ended; None on systems before Linux 5.3.

    A sandbox may lack the call too, or forbid it. Raises `ProcessLookupError` if the process has ended already.
    """
    try:
        return os.pidfd_open(number)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return None
        raise
