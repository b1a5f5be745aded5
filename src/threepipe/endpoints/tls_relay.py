"""TlsRelay: the bytes of a TLS connection on a plain socket, for the native loop, which knows no TLS.

A thread moves the bytes between the connection and one end of a socket pair; the stream has the other end. Knows no
records.
"""

import selectors
import socket
import threading
import time

from threepipe.endpoints.stream import SocketStream, Stream
from threepipe.net.doorbell import Doorbell
from threepipe.net.watch import is_readable

__all__ = ["TlsRelay"]

_PIECE = 1 << 18  # Bytes moved at once.
_RECORD = 1 << 14  # Bytes of a full TLS record; after another size there are rarely more.
_TURN = 0.001  # Seconds to wait for the thread at a time.
_GRACE = 1.0  # Seconds, after close, for written bytes to reach the other end.


class TlsRelay(SocketStream):
    """A stream on a TLS connection whose handshake is done, which it takes over."""

    def __init__(self, secured: Stream) -> None:
        ours, relays = socket.socketpair()
        super().__init__(ours)
        self._closing = Doorbell()
        self._relay = _Relay(secured, _Plain(relays), self._closing)
        self._thread = threading.Thread(target=self._relay.run, name="threepipe-tls", daemon=True)
        self._thread.start()

    def read(self, memory: memoryview) -> int | None:
        size = super().read(memory)
        if size is None and self._relay_caught_up():
            size = super().read(memory)
        if size == 0 and self._relay.error is not None:
            raise self._relay.error
        return size

    def _relay_caught_up(self) -> bool:
        """Wait until the thread has moved the bytes that arrived. Return True if the stream can be read then.

        A listener must know that its client has left before it looks at the next one.
        """
        end = time.monotonic() + _GRACE
        while self._relay.is_behind() and time.monotonic() < end:
            if is_readable(self.reader, _TURN):
                break
        return is_readable(self.reader, 0)

    def close(self) -> None:
        super().close()
        if self._thread.is_alive():
            self._closing.ring()
            self._thread.join()
        self._closing.close()


class _Plain(SocketStream):
    """The relay's end of the socket pair. The stream's end may be closed at any time, which is not an error."""

    def read(self, memory: memoryview) -> int | None:
        try:
            return super().read(memory)
        except ConnectionResetError:
            return 0

    def write(self, data: memoryview) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)

    def shutdown(self) -> None:
        """Let the stream read to its end."""
        self.writer.shutdown(socket.SHUT_WR)


class _Discard:
    """The target of bytes that the other end does not take any more."""

    def write(self, data: memoryview) -> int:
        return len(data)

    def flush(self) -> bool:
        return True


class _Way:
    """One direction: the bytes of `source` that `target` has not accepted yet."""

    def __init__(self, source: Stream, target: Stream) -> None:
        self._source = source
        self._target: Stream | _Discard = target
        self._memory = memoryview(bytearray(_PIECE))
        self._rest = self._memory[:0]
        self.blocked = False
        """True while `target` has no room."""
        self.ended = False
        """True once `source` has nothing more."""

    def move(self) -> bool:
        """Move the bytes that are there. Return False if `source` is open and has none now."""
        self._push()
        if self.blocked or self.ended:
            return True
        filled = 0
        while size := self._source.read(self._memory[filled:]):
            filled += size
            if size % _RECORD or filled == _PIECE:
                break
        self.ended = size == 0
        self._rest = self._memory[:filled]
        self._push()
        return self.ended or filled > 0

    def _push(self) -> None:
        if self._rest:
            self._rest = self._rest[self._target.write(self._rest) :]
        self.blocked = bool(self._rest) or not self._target.flush()

    def discard(self) -> None:
        """Discard the bytes from now on."""
        self._target, self._rest, self.blocked = _Discard(), self._memory[:0], False


class _Relay:
    """The work of the thread. It does both directions, as OpenSSL has one state for them."""

    def __init__(self, secured: Stream, plain: _Plain, closing: Doorbell) -> None:
        self._secured, self._plain = secured, plain
        self._inward, self._outward = _Way(secured, plain), _Way(plain, secured)
        self._closing = closing
        self._deadline: float | None = None  # Once the stream is closed.
        self._lost: OSError | None = None  # The error of writing to the other end.
        self._told = False  # True once the stream can read to its end.
        self._watched: dict[Stream, int] = {}  # The events waited for.
        self.at_work = True
        """False while the thread waits."""
        self.error: Exception | None = None
        """The reason of an end that is not orderly. It is set before the stream reads its end."""

    def is_behind(self) -> bool:
        """Return True if bytes or the end of the connection wait for the thread, and it has room for them."""
        if self._told or self._inward.blocked:
            return False
        return self.at_work or is_readable(self._secured.reader, 0)

    def run(self) -> None:
        """Move bytes until `closing` is rung, and those written to the stream are sent or a second has passed."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._closing, selectors.EVENT_READ)
                ready_in = ready_out = True
                while self._move(ready_in, ready_out):
                    ready_in, ready_out = self._wait(selector)
        except Exception as error:
            self.error = error
        finally:
            self._plain.close()
            self._secured.close()

    def _move(self, ready_in: bool, ready_out: bool) -> bool:
        """Move bytes in the ways that may be ready. Return False once nothing is left to do."""
        if ready_out:
            self._move_out()
        if ready_in and not self._told:
            self._move_in()
        if self._deadline is None:
            return True
        over = self._outward.ended and not self._outward.blocked
        return not over and time.monotonic() < self._deadline

    def _move_out(self) -> None:
        try:
            self._outward.move()
        except OSError as error:
            self._lost = error
            self._outward.discard()

    def _move_in(self) -> None:
        """Move bytes from the other end; let the stream read to its end after the last of them."""
        inward = self._inward
        try:
            moved = inward.move()
        except OSError as error:
            self.error, inward.ended = error, True
        else:
            if not moved and self._lost is not None:
                self.error, inward.ended = self._lost, True  # The other end sent nothing more, either.
        if inward.ended and not inward.blocked:
            self._told = True
            self._plain.shutdown()

    def _wait(self, selector: selectors.BaseSelector) -> tuple[bool, bool]:
        """Wait until bytes can be moved. Return True for the ways, in and out, that may move some."""
        reads_in = not (self._inward.ended or self._inward.blocked)
        if reads_in and (self._lost is not None or self._secured.pending()):
            return True, True
        reads_out = not (self._outward.ended or self._outward.blocked)
        self._watch(selector, self._secured, reads=reads_in, writes=self._outward.blocked)
        self._watch(selector, self._plain, reads=reads_out, writes=self._inward.blocked)
        ready_in = ready_out = False
        timeout = None if self._deadline is None else max(0, self._deadline - time.monotonic())
        self.at_work = False
        ready = selector.select(timeout)
        self.at_work = True
        for key, events in ready:
            readable, writable = bool(events & selectors.EVENT_READ), bool(events & selectors.EVENT_WRITE)
            if key.data is self._secured:
                ready_in, ready_out = ready_in or readable, ready_out or writable
            elif key.data is self._plain:
                ready_in, ready_out = ready_in or writable, ready_out or readable
            else:
                self._closing.clear()
                self._deadline = time.monotonic() + _GRACE
                ready_out = True
        return ready_in, ready_out

    def _watch(self, selector: selectors.BaseSelector, stream: Stream, *, reads: bool, writes: bool) -> None:
        """Have `selector` wait for the stream from now on."""
        events = (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if writes else 0)
        before = self._watched.get(stream, 0)
        if events == before:
            return
        self._watched[stream] = events
        if not events:
            selector.unregister(stream.reader)
        elif before:
            selector.modify(stream.reader, events, stream)
        else:
            selector.register(stream.reader, events, stream)
