"""Streams: connected, non-blocking byte streams of all sorts, in one shape. Knows no records.

Errors of the system pass through; the end of a stream is an empty read.
"""

import errno
import io
import socket
import ssl
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from threepipe import platforms
from threepipe.core.pump import HasFileno
from threepipe.errors import EndpointError, InvalidSetting

__all__ = ["Credentials", "FileStream", "SocketStream", "Stream", "TlsStream"]


class Stream(Protocol):
    """One thread may read while another writes; nobody may while it is closed."""

    @property
    def reader(self) -> HasFileno:
        """What is readable when `read` may have something."""

    @property
    def writer(self) -> HasFileno:
        """What is writable when `write` may have room."""

    def read(self, memory: memoryview) -> int | None:
        """Bytes put at the start of `memory`; 0 at the end of the stream, None where there are none now."""

    def pending(self) -> bool:
        """Whether `read` has something that `reader` does not show."""

    def write(self, data: memoryview) -> int:
        """How many bytes of `data` were taken; 0 where there is no room now."""

    def flush(self) -> bool:
        """Whether all that was taken is written."""

    def last_words(self) -> str:
        """What is wrong with how the other end went, or nothing; once there is nothing more to be read."""

    def close(self) -> None: ...


class SocketStream:
    """A connected socket."""

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

    def last_words(self) -> str:
        return ""

    def close(self) -> None:
        self._socket.close()


class FileStream:
    """A descriptor to read from and one to write to, such as pipes to a program; not on Windows.

    Whether they block belongs to what is open, not to the descriptor: others that have it open too
    get it back as it was.
    """

    def __init__(
        self,
        reader: io.FileIO,
        writer: io.FileIO,
        last_words: Callable[[], str] = lambda: "",
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes both files over, and calls `closed` after closing them; `last_words` is as for every stream."""
        self.reader, self.writer = reader, writer
        self.last_words, self._closed = last_words, closed
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
        for file, blocking in reversed(self._blocking):  # Both may be one file, which the first found as it was.
            if not file.closed:
                _set_blocking(file, blocking)
                file.close()
        self._closed()


def _set_blocking(file: io.FileIO, blocking: bool) -> bool:
    """Make `file` block or not; return True if it blocked before."""
    before = platforms.get_blocking(file.fileno())
    platforms.set_blocking(file.fileno(), blocking)
    return before


class TlsStream:
    """A TLS connection; before data can pass, `handshake` has to return True."""

    _PIECE = 1 << 14  # Bytes a TLS record holds (RFC 8446, section 5.1).

    def __init__(self, connected: ssl.SSLSocket) -> None:
        connected.setblocking(False)
        self.reader = self.writer = self._socket = connected
        self._lock = threading.Lock()  # OpenSSL has one state for both directions.
        self._unwritten = memoryview(b"")  # A piece that was taken, and has to be written as it is.

    def handshake(self) -> bool:
        """Go on with it; False where the other end has to speak first. Raises `OSError` where it fails."""
        try:
            self._socket.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True

    def read(self, memory: memoryview) -> int | None:
        try:
            with self._lock:
                return self._socket.recv_into(memory)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLEOFError:
            return 0  # Cut off without a farewell; records say themselves whether they are whole.

    def pending(self) -> bool:
        return self._socket.pending() > 0

    def write(self, data: memoryview) -> int:
        taken = 0
        while taken < len(data) and self.flush():
            self._unwritten = memoryview(bytes(data[taken : taken + self._PIECE]))
            taken += len(self._unwritten)
        self.flush()
        return taken

    def flush(self) -> bool:
        if self._unwritten:
            try:
                with self._lock:
                    written = self._socket.send(self._unwritten)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            self._unwritten = self._unwritten[written:]
        return not self._unwritten

    def last_words(self) -> str:
        return ""

    def close(self) -> None:
        try:
            self._socket.setblocking(False)
            self._socket.unwrap()
        except (OSError, ValueError):
            pass  # A farewell that the other end does not wait for.
        self._socket.close()


class Credentials(NamedTuple):
    """Paths of PEM files: an own certificate (with its chain), its key, and the authority of the other end."""

    cert: str
    key: str
    ca: str

    def context(self, *, server: bool) -> ssl.SSLContext:
        """For one of the two sides. Raises `EndpointError` where the files cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
            context.load_verify_locations(self.ca)
        except ssl.SSLError as error:
            text = f"{self.cert}, {self.key} and {self.ca}: {error.reason or error}; PEM files of one pair are wanted"
            raise EndpointError(errno.EINVAL, text) from None
        except OSError as error:
            text = f"one of {self.cert}, {self.key} and {self.ca} cannot be read: {error.strerror}"
            raise EndpointError(error.errno, text) from None
        return context


def _no_password() -> str:
    raise InvalidSetting("the key is encrypted; give one that is not, in a file that only this user may read")
