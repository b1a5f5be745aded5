"""Waiting for processes that are not children of this one."""

import sys

assert sys.platform == "linux"

import os

__all__ = ["process_file"]


def process_file(number: int) -> int | None:
    """Return a descriptor that is readable once that process has ended. Raises `OSError` if it has ended already."""
    return os.pidfd_open(number)
