"""StreamPort: a session's packets on a stream, or in turn on those of a listener's clients or of a dialer."""

import errno
import selectors
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from threepipe.bundle import Arena, Bundle
from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.core.ends import End, HasFileno, RecordsEnd
from threepipe.core.superpacket import MAX_RECORD
from threepipe.endpoints.connection import Connection, Disconnected
from threepipe.endpoints.dialer import Dialer
from threepipe.endpoints.listener import Listener
from threepipe.endpoints.request import RateLimitedLog
from threepipe.errors import EndpointEnded, EndpointError, LinkDown
from threepipe.net.watch import EndpointPort

__all__ = ["StreamPort"]

_FINISH_TIMEOUT = 1.0  # Seconds to write the rest of a record before the stream is closed.


class StreamPort(EndpointPort):
    """A port on a connection, and on those that its listener or dialer supplies, with a short way for single packets.

    With a listener it waits for a client and, if `reuse`, for the next after that.
    """

    def __init__(
        self,
        log: RateLimitedLog,
        connection: Connection | None,
        supply: Listener | Dialer | None = None,
        *,
        reuse: bool = False,
        lost: Callable[[str], None] = lambda _: None,
        given: bool = False,
    ) -> None:
        """`lost` is called with a text if the other end of the only connection closes it in order.

        `given`: another process has all of this too, and may go on, until `claim`.
        """
        super().__init__()
        self._log = log
        self._supply = supply
        self._lost = lost
        self._reuse = reuse
        self._given = given
        self._arena = Arena()
        self._memory = memoryview(b"")  # For `receive_once`, which allocates it.
        self._connection: Connection | None = None
        self._lock = threading.Lock()  # Guards the watches, which both directions change.
        self._flushing = False  # True while `readable` waits for room to write, too.
        self._end: Exception | None = None
        self._lent: RecordsEnd | None = None
        self._own_turn = False  # True if a native loop stopped because of this connection.
        self.offer: Callable[[], None] | None = None
        self.writable.ring()  # Without a connection senders need not wait: `send` raises LinkDown.
        if supply is not None:
            supply.watch(self.readable)
        if connection is not None:
            self._attach(connection)

    def state(self) -> tuple[dict[str, Any], Sequence[int]]:
        """Return the connections, for JSON, and the descriptors: first of a listening socket, then theirs."""
        if self._end is not None:
            raise EndpointError(errno.ENOTCONN, "a connection of the pipe has ended, so the pipe ends")
        connections = self._connections()
        sockets: list[HasFileno] = [self._supply.listening] if isinstance(self._supply, Listener) else []
        sockets += [connection.stream.reader for connection in connections]
        states = [connection.state() for connection in connections]
        state = {"connected": self._connection is not None, "connections": states}
        return state, [each.fileno() for each in sockets]

    def _connections(self) -> list[Connection]:
        pending = self._supply.pending if isinstance(self._supply, Listener) else []
        return pending if self._connection is None else [self._connection, *pending]

    def give_away(self) -> None:
        """Leave connections and a listening socket to another process."""
        self._given = True
        if isinstance(self._supply, Listener):
            self._supply.give_away()

    def claim(self) -> None:
        """Finish records at the end, and remove the file of a listening socket."""
        self._given = False
        if isinstance(self._supply, Listener):
            self._supply.claim()

    def lose(self) -> None:
        """Break off all connections, as the other process may have read or written a part of a record."""
        for connection in self._connections():
            connection.take_back(b"", b"", errno.ECONNRESET)
        self.readable.ring()

    def receive(self) -> Bundle:
        if self._end is not None:
            raise self._end
        packets = self._receive()
        if self.offer is not None and self._lendable() is not None:
            offer, self.offer = self.offer, None
            offer()
        return Bundle.of_views(packets)

    def receive_once(self) -> Sequence[bytes]:
        """Return a copy of the packet that one read gives, if it is alone."""
        connection, memory = self._connection, self._memory
        if connection is None or self._end is not None or self._flushing or self.offer is not None:
            return ()
        if not memory:
            self._memory = memory = memoryview(bytearray(MAX_RECORD))
        packet = connection.read_packet(memory)
        if not packet:
            return ()
        if connection.stream.pending():
            self.readable.ring()
        return (packet,)

    def receive_packets(self) -> list[bytes]:
        """Return copies of the packets that are ready."""
        return self.receive().copies()

    def _receive(self) -> list[memoryview]:
        packets = self._read()
        if not packets and self._supply is not None:
            if self._supply.accept(self.readable):
                packets = self._read()  # Notice a client that disconnected before these connected.
            if not packets:
                chosen = self._supply.choose(self._connection, self.readable)
                if chosen is not None and chosen is not self._connection:
                    self._attach(chosen)
                    packets = self._read()
        return packets

    def lend(self) -> End | None:
        """Lend the stream of a connection that works, to a loop that ends if another client connects."""
        if (lendable := self._lendable()) is None:
            return None
        connection, unread = lendable
        reader, writer = connection.stream.reader, connection.stream.writer
        if self._lent is None:
            bells = [self._supply.listening] if isinstance(self._supply, Listener) else []
            self._lent = RecordsEnd(reader, writer, unread, self._take_back, bells)
        self._lent.reader, self._lent.writer, self._lent.unread = reader, writer, unread
        self._lent.handler = connection if connection.stream.is_encrypted else None
        return self._lent

    def _lendable(self) -> tuple[Connection, bytes] | None:
        """Return the connection and its unread bytes if the native loop may use it now."""
        connection = self._connection
        if connection is None or self._end is not None or self._own_turn or self._flushing:
            return None
        if (unread := connection.unread) is None:
            return None
        if isinstance(self._supply, Listener) and not self._supply.is_quiet():
            return None
        return connection, unread

    def _take_back(self, unread: bytes, unsent: bytes, error: int | None) -> None:
        if (connection := self._connection) is not None:
            connection.take_back(unread, unsent, error)
            self._own_turn = error is not None
            with suppress(Disconnected):  # `receive` handles the end.
                self._flush(connection)
            self.readable.ring()  # Something may have to be done before the next byte arrives.

    def _read(self) -> list[memoryview]:
        """Return the packets that the connection has received; none without a connection."""
        if (connection := self._connection) is None:
            return []
        memory = self._arena.free()
        try:
            self._flush(connection)
            packets, used = connection.read(memory, MAX_BUNDLE)
        except Disconnected as reason:
            self._handle_end(connection, str(reason))
            return []
        self._arena.take(used)
        if connection.ready:
            self.readable.ring()
        else:
            self.readable.clear()
        return packets

    def send(self, bundle: Bundle) -> Bundle:
        if (connection := self._connection) is None:
            raise LinkDown(errno.ENOTCONN, "nothing is connected")
        packets = list(bundle)
        try:
            accepted = connection.write(packets)
            self._flush(connection)
        except Disconnected:
            # `receive` handles the end, after the packets that were sent before it.
            raise LinkDown(errno.EPIPE, f"{connection.name} disconnected") from None
        return Bundle.of_views(packets[accepted:])

    def send_packet(self, packet: bytes) -> bool:
        """Write one packet; have `send` go on if that fails."""
        connection = self._connection
        if connection is None or (written := connection.write_packet(packet)) is None:
            return False
        if not written:
            with suppress(Disconnected):  # `receive` handles the end.
                self._flush(connection)
        return True

    def _flush(self, connection: Connection) -> None:
        """Write the rest of accepted records, or have the receiver woken to do so when the stream has room."""
        with self._lock:
            flushing = not connection.flush()
            if flushing == self._flushing or connection is not self._connection:
                return
            self._flushing = flushing
            reader, writer = connection.stream.reader, connection.stream.writer
            events = selectors.EVENT_WRITE if flushing else 0
            if writer is reader:
                events |= selectors.EVENT_READ
            self.readable.watch(writer, events)

    def _attach(self, connection: Connection) -> None:
        """Use `connection` from now on."""
        if (before := self._connection) is not None:
            self._detach(before)
            before.close()
        with self._lock:
            self._connection, self._flushing, self._own_turn = connection, False, False
            self._watch(connection)
            self.writable.clear()
        self._log.info(f"{connection.name} connected")

    def _detach(self, connection: Connection) -> None:
        with self._lock:
            self._connection = None
            self.writable.ring()
            self.readable.clear()
            self._forget(connection)

    def _watch(self, connection: Connection) -> None:
        self.readable.watch(connection.stream.reader, selectors.EVENT_READ)
        self.writable.watch(connection.stream.writer, selectors.EVENT_WRITE)

    def _forget(self, connection: Connection) -> None:
        self.readable.watch(connection.stream.reader, 0)
        self.readable.watch(connection.stream.writer, 0)
        self.writable.watch(connection.stream.writer, 0)

    def _handle_end(self, connection: Connection, why: str) -> None:
        """Wait for the next connection; raise the error that ends the session if none may follow."""
        self._log.info(f"{connection.name} disconnected")
        # A client that connected and sent nothing does not count as the one client.
        if self._supply is not None and (self._reuse or not connection.established):
            self._detach(connection)
            self._supply.retire(connection, why)
            return
        why = why or connection.stream.failure()  # The stream stays open: the other end may still read.
        name = connection.name
        self._end = EndpointError(errno.EPROTO, f"{name} {why}") if why else EndpointEnded(f"{name} disconnected")
        if not why:
            self._lost(f"{name} disconnected")
        self.readable.ring(for_ever=True)
        raise self._end

    def stop(self) -> None:
        if self._supply is not None:
            self._supply.close()
        if (connection := self._connection) is not None:
            if not self._given:
                _finish(connection)
            connection.close()


def _finish(connection: Connection) -> None:
    """Write the rest of a record, unless the other end does not read."""
    end = time.monotonic() + _FINISH_TIMEOUT
    try:
        if connection.flush():
            return  # Ask first: a selector does not take a plain file.
        with selectors.DefaultSelector() as selector:
            selector.register(connection.stream.writer, selectors.EVENT_WRITE)
            while not connection.flush() and (remaining := end - time.monotonic()) > 0:
                selector.select(remaining)
    except Disconnected:
        pass  # The other end does not read the rest.
