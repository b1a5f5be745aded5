"""Telling the service manager that this process is ready, and that it ends, as sd_notify(3) describes.

Without the variable NOTIFY_SOCKET, which systemd sets for services of Type=notify, there is nobody to tell.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Announcement", "announced"]

_log = logging.getLogger("threepipe")


class Announcement:
    """The state of this process, as told to the service manager."""

    def __init__(self) -> None:
        self._given = False

    def give_away(self, pid: int) -> None:
        """Say that the service is the process `pid` from now on, so this one may end."""
        self._given = True
        _notify(f"MAINPID={pid}")

    def end(self) -> None:
        """Say that the service stops, unless it was given away."""
        if not self._given:
            _notify("STOPPING=1")


@contextmanager
def announced(status: str) -> Iterator[Announcement]:
    """Say that the service is ready, with one line about its `status`; and when the block is left, that it stops."""
    announcement = Announcement()
    try:
        _notify(f"READY=1\nSTATUS={status}")  # A signal may arrive as soon as it is sent.
        yield announcement
    finally:
        announcement.end()


def _notify(state: str) -> None:
    if not (address := os.environ.get("NOTIFY_SOCKET")) or not hasattr(socket, "AF_UNIX"):
        return
    if address.startswith("@"):  # Linux' abstract names begin with a null byte.
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.sendto(state.encode(), address)
    except OSError as error:
        _log.warning("the service manager cannot be told %s: %s", state.partition("\n")[0], error.strerror or error)
