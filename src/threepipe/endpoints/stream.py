"""Streams: connected, non-blocking byte streams over sockets, files and TLS, behind one protocol. Knows no records.

The system's errors pass through; the end of a stream is a read of 0 bytes.
"""

import errno
import io
import os
import socket
import ssl
import stat
import struct
import threading
from collections.abc import Callable
from typing import Protocol

from threepipe import platforms
from threepipe.core.pump import HasFileno
from threepipe.endpoints.credentials import CertificateRefused

__all__ = ["FileStream", "SocketStream", "Stream", "TlsStream"]


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
        """True if its bytes are those of `reader` and `writer`, and a program can wait for both."""

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


class TlsStream:
    """A TLS connection. On an accepted socket call `handshake` until it returns True, before reading and writing."""

    is_plain = False
    _MAX_RECORD = 1 << 14  # Bytes a TLS record holds (RFC 8446, section 5.1).
    _RESET = struct.pack(platforms.LINGER, 1, 0)  # To linger for no time at all is to reset the connection.

    def __init__(self, connected: ssl.SSLSocket, check: Callable[[ssl.SSLSocket], None] = lambda _: None) -> None:
        """`check` looks at the other end's certificate after `handshake`, and raises `CertificateRefused`."""
        connected.setblocking(False)
        self._check = check
        self._refused = False
        self._has_read = False
        self.reader = self.writer = self._socket = connected
        self._lock = threading.Lock()  # OpenSSL has one state for both directions.
        self._unwritten = memoryview(b"")  # Accepted; OpenSSL wants the same bytes at the next try.

    def handshake(self) -> bool:
        """Continue the handshake, and return True when it is done. Raise `OSError` if it fails."""
        try:
            self._socket.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except ssl.SSLCertVerificationError as error:
            raise CertificateRefused(error.verify_message) from None  # OpenSSL has told the other end.
        try:
            self._check(self._socket)
        except CertificateRefused:
            self._refused = True
            raise
        return True

    def read(self, memory: memoryview) -> int | None:
        try:
            with self._lock:
                size = self._socket.recv_into(memory)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except (ssl.SSLEOFError, ConnectionResetError):  # Python before 3.12.3 tells these apart badly (gh-115627).
            if not self._has_read and _is_reset(self._socket):
                raise ConnectionResetError(errno.ECONNRESET, "the other end does not accept this one") from None
            return 0  # No close_notify; packet records have lengths, so a cut is noticed.
        self._has_read = self._has_read or size > 0
        return size

    def pending(self) -> bool:
        return self._socket.pending() > 0

    def write(self, data: memoryview) -> int:
        accepted = 0
        while accepted < len(data) and self.flush():
            self._unwritten = memoryview(bytes(data[accepted : accepted + self._MAX_RECORD]))
            accepted += len(self._unwritten)
        self.flush()
        return accepted

    def flush(self) -> bool:
        if self._unwritten:
            try:
                with self._lock:
                    written = self._socket.send(self._unwritten)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            self._unwritten = self._unwritten[written:]
        return not self._unwritten

    def failure(self) -> str:
        return ""

    def close(self) -> None:
        try:
            self._socket.setblocking(False)
            if self._refused:  # The other end has finished its handshake, and must not take this for an orderly end.
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, self._RESET)
            else:
                self._socket.unwrap()
        except (OSError, ValueError):
            pass  # The other end does not wait for close_notify.
        self._socket.close()


def _is_reset(connected: socket.socket) -> bool:
    """Return True if the other end broke the connection off."""
    try:
        connected.getpeername()
    except OSError:
        return True
    return False
