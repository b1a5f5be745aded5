"""Accepting connections, also while this process has no descriptor left. Knows no protocol."""

import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Acceptor"]

_NO_DESCRIPTOR = frozenset((errno.EMFILE, errno.ENFILE))
_PAUSE = 0.1  # Seconds.


class Acceptor:
    """Accepts the connections of a non-blocking listening socket. Not thread-safe.

    A pending connection that cannot be accepted keeps the socket ready, and a loop that waits for it would spin. So a
    spare descriptor is kept: without another one, the connection is accepted with it and closed. Another thread, or
    with ENFILE another program, may take the spare one meanwhile; then `accept` pauses until the next attempt.
    """

    def __init__(self, listening: socket.socket, pause: Callable[[float], None] = time.sleep) -> None:
        """`pause` waits for as many seconds as it is given."""
        self._listening, self._pause = listening, pause
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
            if error.errno in _NO_DESCRIPTOR:
                if self._spare >= 0:
                    self._refuse()  # Raises BlockingIOError if none is pending: Linux looks for a descriptor first.
                else:
                    self._pause(_PAUSE)
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
