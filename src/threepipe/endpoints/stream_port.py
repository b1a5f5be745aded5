"""StreamPort: a session's traffic with whoever is at the other end of a stream, one caller after another."""

import errno
import selectors
import threading
import time

from threepipe.backend import EndpointPort
from threepipe.bundle import Arena, Bundle
from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.endpoints.caller import Caller, CallerLeft
from threepipe.endpoints.listener import Listener
from threepipe.endpoints.request import Complaints
from threepipe.errors import EndpointEnded, EndpointError, LinkDown

__all__ = ["StreamPort"]

_FAREWELL = 1.0  # Seconds in which a started record is written to its end before the stream is closed.


class StreamPort(EndpointPort):
    """With a listener it waits for the first caller and, if `again`, for the next when one has left."""

    def __init__(
        self, complaints: Complaints, caller: Caller | None, listener: Listener | None = None, *, again: bool = False
    ) -> None:
        super().__init__()
        self._complaints = complaints
        self._listener = listener
        self._again = again
        self._arena = Arena()
        self._caller: Caller | None = None
        self._lock = threading.Lock()  # Of what is waited for, which both directions change.
        self._flushing = False  # Whether `readable` waits for room, too.
        self._end: Exception | None = None
        self.writable.ring()  # While there is no caller, sending has something to say: that the link is down.
        if listener is not None:
            listener.watch(self.readable)
        if caller is not None:
            self._take(caller)

    def receive(self) -> Bundle:
        if self._end is not None:
            raise self._end
        packets = self._read()
        if not packets and self._listener is not None:
            if self._listener.accept(self.readable):
                packets = self._read()  # A caller who left before they came has to be seen to have left.
            if not packets:
                chosen = self._listener.choose(self._caller, self.readable)
                if chosen is not None and chosen is not self._caller:
                    self._take(chosen)
                    packets = self._read()
        return Bundle.of_views(packets)

    def _read(self) -> list[memoryview]:
        """Packets of the caller, if there is one and it has sent some."""
        if (caller := self._caller) is None:
            return []
        memory = self._arena.free()
        try:
            self._settle(caller)
            packets, used = caller.read(memory, MAX_BUNDLE)
        except CallerLeft as left:
            self._lose(caller, str(left))
            return []
        self._arena.take(used)
        if caller.ready:
            self.readable.ring()
        else:
            self.readable.clear()
        return packets

    def send(self, bundle: Bundle) -> Bundle:
        if (caller := self._caller) is None:
            raise LinkDown(errno.ENOTCONN, "nobody is at the other end")
        packets = list(bundle)
        try:
            taken = caller.write(packets)
            self._settle(caller)
        except CallerLeft:
            # Receiving finds it out as well, after what it may have sent before it left.
            raise LinkDown(errno.EPIPE, f"{caller.name} has left") from None
        return Bundle.of_views(packets[taken:])

    def _settle(self, caller: Caller) -> None:
        """See that somebody writes what was taken and not yet written: whoever receives, once there is room."""
        with self._lock:
            flushing = not caller.flush()
            if flushing == self._flushing or caller is not self._caller:
                return
            self._flushing = flushing
            reader, writer = caller.stream.reader, caller.stream.writer
            wanted = selectors.EVENT_WRITE if flushing else 0
            if writer is reader:
                wanted |= selectors.EVENT_READ
            self.readable.watch(writer, wanted)

    def _take(self, caller: Caller) -> None:
        """`caller` is who packets go to from now on."""
        if self._caller is not None:
            self._forget(self._caller)
        with self._lock:
            self._caller, self._flushing = caller, False
            self.readable.watch(caller.stream.reader, selectors.EVENT_READ)
            self.writable.watch(caller.stream.writer, selectors.EVENT_WRITE)
            self.writable.clear()
        self._complaints.tell(f"{caller.name} is there")

    def _forget(self, caller: Caller) -> None:
        with self._lock:
            self._caller = None
            self.writable.ring()
            self.readable.clear()
            self.readable.watch(caller.stream.reader, 0)
            self.readable.watch(caller.stream.writer, 0)
            self.writable.watch(caller.stream.writer, 0)
        caller.close()

    def _lose(self, caller: Caller, why: str) -> None:
        """Nothing more will come from it; raises what ends the session, if there will be no other."""
        self._complaints.tell(f"{caller.name} has left")
        # Whoever only knocked does not count as the one caller that was waited for.
        if self._listener is not None and (self._again or not caller.proven):
            self._forget(caller)
            if why:
                self._complaints.warn("caller", f"{caller.name} {why}")
            return
        why = why or caller.stream.last_words()  # It may still want to hear something: that is for the pump to say.
        self._end = EndpointError(errno.EPROTO, f"{caller.name} {why}") if why else EndpointEnded(f"{caller.name} left")
        self.readable.ring(for_ever=True)
        raise self._end

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if (caller := self._caller) is not None:
            _finish(caller)
            caller.close()


def _finish(caller: Caller) -> None:
    """Write a started record to its end, unless the other end does not read."""
    end = time.monotonic() + _FAREWELL
    try:
        if caller.flush():
            return  # A plain file, for one, which no selector takes.
        with selectors.DefaultSelector() as selector:
            selector.register(caller.stream.writer, selectors.EVENT_WRITE)
            while not caller.flush() and (remaining := end - time.monotonic()) > 0:
                selector.select(remaining)
    except CallerLeft:
        pass  # Then there is nobody to finish it for.
