"""TlsStream: a stream on a TLS connection."""

import errno
import socket
import ssl
import struct
import threading
from collections.abc import Callable

from threepipe import platforms
from threepipe.endpoints.credentials import CertificateRefused
from threepipe.endpoints.stream import Stream
from threepipe.endpoints.tls_relay import TlsRelay

__all__ = ["TlsStream"]


class TlsStream:
    """A TLS connection. On an accepted socket call `handshake` until it returns True, before reading and writing."""

    is_plain = True
    _PIECE = 1 << 16  # Bytes accepted at once: four TLS records (RFC 8446, section 5.1).
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

    def plain(self) -> Stream:
        return TlsRelay(self)

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
            self._unwritten = memoryview(bytes(data[accepted : accepted + self._PIECE]))
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
