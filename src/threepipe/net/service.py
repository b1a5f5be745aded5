"""Telling the service manager that this process is ready, and that it ends, as sd_notify(3) describes.

Without the variable NOTIFY_SOCKET, which systemd sets for services of Type=notify, there is nobody to tell.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["announced"]

_log = logging.getLogger("threepipe")


@contextmanager
def announced(status: str) -> Iterator[None]:
    """Say that the service is ready, with one line about its `status`; and when the block is left, that it stops."""
    try:
        _notify(f"READY=1\nSTATUS={status}")  # A signal may arrive as soon as it is sent.
        yield
    finally:
        _notify("STOPPING=1")


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
