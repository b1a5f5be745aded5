"""TlsStream: a stream on a TLS connection.

OpenSSL works in memory, as on a socket it would read and write each TLS record, of 16 KiB at most, by itself.
"""

import errno
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from threepipe import platforms

__all__ = ["TlsStream"]

_RECEIVED = 1 << 17  # Bytes received at once.
_RESET = struct.pack(platforms.LINGER, 1, 0)  # To linger for no time at all is to reset the connection.


class TlsStream:
    """A TLS connection. Call `handshake` until it returns True, before reading and writing."""

    is_plain = True
    is_encrypted = True

    def __init__(
        self,
        connected: socket.socket,
        context: ssl.SSLContext,
        check: Callable[[ssl.SSLObject], None],
        listener: str | None = None,
    ) -> None:
        """Take a socket over. `listener` is the name of the end that accepted the connection; None: this end did.

        `check` looks at the other end's certificate after the handshake, and raises `CertificateRefused`.
        """
        connected.setblocking(False)
        self.reader = self.writer = self._socket = connected
        self._check = check
        self._refused = False
        self._has_read = False
        self._is_over = False  # True once `read` has no further bytes.
        self._fault: ssl.SSLError | None = None  # The error that ends the bytes read.
        self._received = memoryview(bytearray(_RECEIVED))
        self._unsent = memoryview(b"")
        self._lock = threading.Lock()  # OpenSSL has one state for both directions.
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._secured = context.wrap_bio(
            self._incoming, self._outgoing, server_side=listener is None, server_hostname=listener
        )

    def handshake(self) -> bool:
        """Continue the handshake, and return True when it is done. Raise `OSError` if it fails."""
        while not self._shake_hands():
            if not self._receive():
                return False
        try:
            self._check(self._secured)
        except OSError:
            self._refused = True
            raise
        return True

    def _shake_hands(self) -> bool:
        is_done = True
        try:
            self._secured.do_handshake()
        except ssl.SSLWantReadError:
            is_done = False
        except ssl.SSLError:
            with suppress(OSError):  # The other end is gone, which is no reason.
                self.flush()  # What went wrong.
            raise
        self.flush()
        return is_done

    def _receive(self) -> bool:
        """Pass what arrived to OpenSSL, or the end. Return False if nothing did."""
        try:
            size = self._socket.recv_into(self._received)
        except BlockingIOError:
            return False
        if size:
            self._incoming.write(self._received[:size])
        elif _is_reset(self._socket):
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        else:
            self._incoming.write_eof()
        return True

    def read(self, memory: memoryview) -> int | None:
        """Read all that one `recv` brings, if there is room for as many bytes and a TLS record."""
        with self._lock:
            try:
                if not self.pending() and not self._receive():
                    return None
            except ConnectionResetError:
                if self._has_read:
                    return 0
                raise ConnectionResetError(errno.ECONNRESET, "the other end does not accept this one") from None
            size = 0 if self._is_over else self._decrypt(memory)
            if not size and self._fault is not None:
                raise self._fault
        self._has_read = self._has_read or bool(size)
        return size

    def _decrypt(self, memory: memoryview) -> int | None:
        filled = 0
        try:
            while size := cast(int, self._secured.read(len(memory) - filled, memory[filled:])):
                filled += size
                if filled == len(memory) or not self.pending():
                    return filled
        except ssl.SSLWantReadError:
            return filled or None
        except ssl.SSLEOFError:
            pass  # No close_notify; packet records have lengths, so a cut is noticed.
        except ssl.SSLError as error:
            self._fault = error
        self._is_over = True
        with suppress(OSError):  # The other end is gone.
            self._socket.shutdown(socket.SHUT_RD)  # So that it stays readable: the end is read again.
        return filled

    def pending(self) -> bool:
        return self._is_over or self._incoming.pending > 0 or self._secured.pending() > 0

    def write(self, data: memoryview) -> int:
        accepted = 0
        if data and self.flush():
            with self._lock:
                accepted = self._secured.write(data)
            self.flush()
        return accepted

    def flush(self) -> bool:
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                with self._lock:
                    self._unsent = memoryview(self._outgoing.read())
            try:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            except BlockingIOError:
                return False
        return True

    def failure(self) -> str:
        return ""

    def close(self) -> None:
        try:
            if self._refused:  # The other end has finished its handshake, and must not take this for an orderly end.
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:
                with suppress(ssl.SSLError):  # The other end has not answered, or its last bytes are unread.
                    self._secured.unwrap()
                self.flush()
        except (OSError, ValueError):
            pass
        self._socket.close()


def _is_reset(connected: socket.socket) -> bool:
    """Return True if the other end broke the connection off, which reads as its end in Wine."""
    try:
        connected.getpeername()
    except OSError:
        return True
    return False
