"""Descriptors, pipes and folders on Windows, which differ from POSIX: see `platforms.posix` for what each means."""

import os
from pathlib import Path

__all__ = [
    "COMMAND_ESCAPE",
    "INHERITS_DESCRIPTORS",
    "LINGER",
    "PIPES_CAN_BE_AWAITED",
    "access_mode",
    "enlarge_pipe",
    "get_blocking",
    "is_exposed",
    "is_private",
    "runtime_folder",
    "set_blocking",
    "try_lock",
    "unlock",
]

COMMAND_ESCAPE = ""  # A backslash separates the parts of a path.
INHERITS_DESCRIPTORS = False
LINGER = "hh"
"""The format of `struct linger` for `struct`: whether to linger, and for how many seconds."""
PIPES_CAN_BE_AWAITED = False


def access_mode(number: int) -> int:
    """Return O_RDWR: Windows does not record how a descriptor was opened."""
    return os.O_RDWR


def get_blocking(number: int) -> bool:
    """Return True: every descriptor blocks."""
    return True


def set_blocking(number: int, blocking: bool) -> None:
    """Do nothing: every descriptor blocks."""


def enlarge_pipe(number: int) -> None:
    """Do nothing: the buffer of a pipe is fixed when it is created."""


def runtime_folder() -> Path | None:
    """Return None: Python on Windows has no Unix sockets."""
    return None


def is_private(folder: Path) -> bool:
    """Return False if `folder` exists: its mode does not show its access rights. Raises `OSError`."""
    folder.lstat()
    return False


def is_exposed(file: Path | int) -> bool:
    """Return False: the mode of a file does not show its access rights."""
    return False


def try_lock(number: int) -> bool:
    """Return True: the commands that lock files work on other systems only."""
    return True


def unlock(number: int) -> None:
    """Do nothing: see `try_lock`."""
