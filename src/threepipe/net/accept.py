"""Accepting connections, also while this process has no descriptor left. Knows no protocol."""

import errno
import os
import socket
from typing import Any

__all__ = ["Acceptor"]

_NO_DESCRIPTOR = frozenset((errno.EMFILE, errno.ENFILE))


class Acceptor:
    """Accepts the connections of a non-blocking listening socket. Not thread-safe.

    A pending connection that cannot be accepted keeps the socket ready, and a loop that waits for it would spin. So a
    spare descriptor is kept: without another one, the connection is accepted with it and closed.
    """

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._spare = _spare()

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a connection and its address.

        Raises `OSError`: BlockingIOError if none is pending, and EMFILE or ENFILE if one was refused for want of a
        descriptor.
        """
        if self._spare < 0:
            self._spare = _spare()
        try:
            return self._listening.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR and self._spare >= 0:
                self._refuse()  # Raises BlockingIOError if none is pending: Linux looks for a descriptor first.
            raise

    def _refuse(self) -> None:
        os.close(self._spare)
        self._spare = -1
        try:
            self._listening.accept()[0].close()
        finally:
            self._spare = _spare()

    def close(self) -> None:
        """Close the spare descriptor. The listening socket stays open."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1


def _spare() -> int:
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return -1
