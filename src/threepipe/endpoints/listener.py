"""Listener: the choice of one client among those that connect, so that a silent one cannot keep others out.

The first client is chosen at once, because it may wait for packets before it sends any. Until it has sent a packet,
further connections stay pending, a bounded number of them, and the first that sends a packet replaces it. From then
on every other connection is refused until the client disconnects. Over TLS a finished handshake, which shows a
certificate, counts like a packet. Knows nothing of sessions.
"""

import selectors
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from threepipe.endpoints.connection import Connection, Disconnected
from threepipe.endpoints.request import RateLimitedLog
from threepipe.endpoints.stream import SocketStream
from threepipe.endpoints.tls_stream import TlsStream
from threepipe.net.accept import Acceptor
from threepipe.net.connect import remover
from threepipe.net.watch import Watch, is_readable

__all__ = ["Listener", "Wrap"]

_MAX_PENDING = 16  # Connections; each may buffer up to one record. One more and the oldest is closed.
_MAX_ACCEPTED = 64  # Connections accepted in a row, before the client's packets are read again.

Wrap = Callable[[socket.socket], SocketStream | TlsStream]


class Listener:
    """A listening socket and its pending connections. Not thread-safe."""

    def __init__(
        self,
        listening: socket.socket,
        wrap: Wrap,
        log: RateLimitedLog,
        remove: Callable[[], None] = lambda: None,
        pending: Iterable[tuple[Connection, SocketStream]] = (),
    ) -> None:
        """Take the socket over, and connections that were accepted and not chosen.

        `wrap` makes a stream of an accepted socket; `remove` is called before the listening one is closed.
        """
        listening.setblocking(False)
        self.listening = listening
        """The socket at which clients wait to be accepted."""
        self._acceptor = Acceptor(listening)
        self._wrap = wrap
        self._log = log
        self._remove = remove
        self._pending = [_Pending(*each) for each in pending]

    @property
    def pending(self) -> list[Connection]:
        """The connections that were accepted and not chosen."""
        return [pending.connection for pending in self._pending]

    def give_away(self) -> None:
        """Leave the file of a Unix socket to another process."""
        self._remove = lambda: None

    def claim(self) -> None:
        """Remove the file of a Unix socket at the end, in place of another process."""
        if self.listening.family not in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):  # Somebody has removed it.
                self._remove = remover(self.listening.getsockname())

    def watch(self, readable: Watch) -> None:
        readable.watch(self.listening, selectors.EVENT_READ)
        for pending in self._pending:
            readable.watch(pending.connection.stream.reader, selectors.EVENT_READ)

    def is_quiet(self) -> bool:
        """Return True if no other client is connected or waits to be accepted."""
        return not self._pending and not is_readable(self.listening, 0)

    def choose(self, client: Connection | None, readable: Watch) -> Connection | None:
        """Return the client from now on: `client`, the present one, or a pending connection.

        Read from a new client before the next choice: it may have disconnected already.
        """
        for pending in list(self._pending):
            if client is not None and client.established:
                self._dismiss(pending, readable, "was refused: another client is connected")
            elif self._takes_over(pending, client, readable):
                self._pending.remove(pending)
                readable.watch(pending.connection.stream.reader, 0)
                if client is not None:
                    self._log.warn("silent", f"{client.name} sent nothing and was replaced by another client")
                return pending.connection
        return client

    def retire(self, connection: Connection, why: str) -> None:
        """Close the connection of a client that has disconnected, for the reason `why`."""
        connection.close()
        if why:
            self._log.warn("client", f"{connection.name} {why}")

    def accept(self, readable: Watch) -> bool:
        """Accept connections, and return True if there were any. They make `readable` ready until they are chosen."""
        accepted_any = False
        for _ in range(_MAX_ACCEPTED):
            try:
                accepted, address = self._acceptor.accept()
            except BlockingIOError:
                break
            except OSError as error:
                # The client is gone already, or was refused because this process has no descriptor left.
                self._log.warn("accept", f"a connection could not be accepted ({error.strerror})")
                break
            try:
                stream = self._wrap(accepted)
            except OSError as error:  # The client is gone, and TLS cannot wrap its socket.
                accepted.close()
                self._log.warn("accept", f"a connection was closed before it was accepted ({error.strerror})")
                continue
            accepted_any = True
            name = f"{address[0]} port {address[1]}" if address and isinstance(address, tuple) else "a program"
            self._pending.append(_Pending(Connection(stream, name), stream))
            readable.watch(stream.reader, selectors.EVENT_READ)
            if len(self._pending) > _MAX_PENDING:
                self._dismiss(self._pending[0], readable, "sent nothing and was closed in favor of newer connections")
        return accepted_any

    def _takes_over(self, pending: "_Pending", client: Connection | None, readable: Watch) -> bool:
        connection = pending.connection
        try:
            if isinstance(pending.stream, TlsStream):
                connection.established = pending.stream.handshake()
                return connection.established
            return connection.try_establish() or client is None
        except Disconnected as reason:
            self._dismiss(pending, readable, str(reason))
        except OSError as error:
            reasons = (getattr(error, name, None) for name in ("verify_message", "reason"))
            self._dismiss(pending, readable, f"failed the TLS handshake ({next(filter(None, reasons), error)})")
        return False

    def _dismiss(self, pending: "_Pending", readable: Watch, why: str) -> None:
        self._pending.remove(pending)
        readable.watch(pending.connection.stream.reader, 0)
        pending.connection.close()
        if why:
            self._log.warn("dismissed", f"{pending.connection.name} {why}")

    def close(self) -> None:
        for pending in self._pending:
            pending.connection.close()
        self._acceptor.close()
        self._remove()
        self.listening.close()


class _Pending(NamedTuple):
    connection: Connection
    stream: SocketStream | TlsStream
