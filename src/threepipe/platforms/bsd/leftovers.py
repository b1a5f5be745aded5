"""Interfaces that a killed program has left, told from those of others by a locked file for each.

The file is named after the interface and locked as long as its program lives. A file without a lock is one of a program
that could not remove its interface. Needed where an interface outlives the descriptor of its device.
"""

import sys

assert sys.platform != "win32"

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from threepipe.platforms.posix import try_lock

__all__ = ["Mark", "leftovers"]

_SUFFIX = ".tun"


class Mark:
    """The locked file of an interface of this process."""

    def __init__(self, folder: Path, name: str) -> None:
        """Mark the interface `name`. Raises `OSError`."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / f"{name}{_SUFFIX}"
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try_lock(self._descriptor)

    def remove(self) -> None:
        """Remove the file; the interface is gone."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def leave_behind(self) -> None:
        """Close the file in a forked child, without a change to the parent's lock."""
        os.close(self._descriptor)


def leftovers(folder: Path, names: Iterable[str]) -> Iterator[str]:
    """Yield those of the interfaces whose program has ended without removing them, and remove their files."""
    for name in names:
        path = folder / f"{name}{_SUFFIX}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue  # It is none of ours.
        try:
            if try_lock(descriptor):
                path.unlink(missing_ok=True)
                yield name
        finally:
            os.close(descriptor)
