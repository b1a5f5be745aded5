"""Streams: connected, non-blocking byte streams over sockets and files, behind one protocol. Knows no records.

The system's errors pass through; the end of a stream is a read of 0 bytes.
"""

import io
import os
import socket
import stat
from collections.abc import Callable
from typing import Protocol

from threepipe import platforms
from threepipe.core.ends import HasFileno

__all__ = ["FileStream", "SocketStream", "Stream"]


class Stream(Protocol):
    """A byte stream in both directions. One thread may read while another writes, but not during `close`."""

    @property
    def reader(self) -> HasFileno:
        """The file to wait for before `read`."""

    @property
    def writer(self) -> HasFileno:
        """The file to wait for before `write`."""

    @property
    def is_plain(self) -> bool:
        """True if the native loop can wait for the files."""

    @property
    def is_encrypted(self) -> bool:
        """True if the files have other bytes than `read` and `write`."""

    def read(self, memory: memoryview) -> int | None:
        """Read into the start of `memory`, and return the number of bytes; 0 at the end, None if none are ready."""

    def pending(self) -> bool:
        """Return True if `read` has bytes although `reader` is not readable."""

    def write(self, data: memoryview) -> int:
        """Write from the start of `data`, and return the number of bytes accepted; 0 if the stream is full."""

    def flush(self) -> bool:
        """Write the rest of the bytes accepted, and return True once all is written."""

    def failure(self) -> str:
        """Return how the other end failed, or "". Call it after the end of the stream."""

    def close(self) -> None: ...


class SocketStream:
    """A connected socket."""

    is_plain = True
    is_encrypted = False

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self.reader = self.writer = self._socket = connected

    def read(self, memory: memoryview) -> int | None:
        try:
            return self._socket.recv_into(memory)
        except BlockingIOError:
            return None

    def pending(self) -> bool:
        return False

    def write(self, data: memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def flush(self) -> bool:
        return True

    def failure(self) -> str:
        return ""

    def close(self) -> None:
        self._socket.close()


class FileStream:
    """A descriptor to read from and one to write to, such as pipes to a program; not on Windows.

    O_NONBLOCK belongs to the open file, which other processes may share, so it is restored on close.
    """

    is_encrypted = False

    def __init__(
        self,
        reader: io.FileIO,
        writer: io.FileIO,
        failure: Callable[[], str] = lambda: "",
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        """Take both files over. `failure` is the stream's; `closed` is called after closing."""
        self.reader, self.writer = reader, writer
        self.failure, self._closed = failure, closed
        self.is_plain = all(_can_be_awaited(file) for file in (reader, writer))
        self._blocking = [(file, _set_blocking(file, False)) for file in (reader, writer)]

    def read(self, memory: memoryview) -> int | None:
        return self.reader.readinto(memory)

    def pending(self) -> bool:
        return False

    def write(self, data: memoryview) -> int:
        return self.writer.write(data) or 0

    def flush(self) -> bool:
        return True

    def close(self) -> None:
        for file, blocking in reversed(self._blocking):  # If both are one file, the first found its mode.
            if not file.closed:
                _set_blocking(file, blocking)
                file.close()
        self._closed()


def _can_be_awaited(file: io.FileIO) -> bool:
    """Return False for a plain file and a device, which epoll may refuse."""
    mode = os.fstat(file.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _set_blocking(file: io.FileIO, blocking: bool) -> bool:
    """Make `file` block or not, and return the mode before."""
    before = platforms.get_blocking(file.fileno())
    platforms.set_blocking(file.fileno(), blocking)
    return before
