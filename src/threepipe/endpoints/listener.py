"""Listener: which of those who connect is the caller, so that a stranger who says nothing keeps nobody out.

The first to connect is the caller at once, for it may wait for packets before it has any. Until a
packet has come from it, others wait at the door, a bounded number of them, and the first of them
that sends one takes its place. From then on all others are turned away until it leaves. Over TLS,
who has shown a certificate has proved enough. Knows nothing of sessions.
"""

import selectors
import socket
from collections.abc import Callable
from typing import NamedTuple

from threepipe.endpoints.caller import Caller, CallerLeft
from threepipe.endpoints.request import Complaints
from threepipe.endpoints.stream import SocketStream, TlsStream
from threepipe.net.watch import Watch

__all__ = ["Listener"]

_MAX_WAITING = 16  # At the door; each may have sent up to one record. Whoever came first is sent away for more.
_MAX_ACCEPTED = 64  # Connections taken up at a time, before the caller is looked after again.

Wrap = Callable[[socket.socket], SocketStream | TlsStream]


class Listener:
    """A listening socket and who waits at it. Not thread-safe."""

    def __init__(
        self, listening: socket.socket, wrap: Wrap, complaints: Complaints, closed: Callable[[], None] = lambda: None
    ) -> None:
        """Takes the socket over; `wrap` makes a stream of an accepted one; `closed` is called after closing."""
        listening.setblocking(False)
        self._listening = listening
        self._wrap = wrap
        self._complaints = complaints
        self._closed = closed
        self._waiting: list[_Waiting] = []

    def watch(self, readable: Watch) -> None:
        readable.watch(self._listening, selectors.EVENT_READ)

    def choose(self, caller: Caller | None, readable: Watch) -> Caller | None:
        """Who is the caller now: `caller`, who is that so far, or another of those who wait.

        Whoever is it new has to be read before the next is chosen: it may have left already.
        """
        for waiting in list(self._waiting):
            if caller is not None and caller.proven:
                self._dismiss(waiting, readable, "was turned away: there is a caller already")
            elif self._takes_over(waiting, caller, readable):
                self._waiting.remove(waiting)
                readable.watch(waiting.caller.stream.reader, 0)
                if caller is not None:
                    self._complaints.warn("silent", f"{caller.name} said nothing and had to make room for another")
                return waiting.caller
        return caller

    def accept(self, readable: Watch) -> bool:
        """Take up who connects, and return whether anybody did. `readable` wakes for whoever waits."""
        anybody = False
        for _ in range(_MAX_ACCEPTED):
            try:
                connected, address = self._listening.accept()
            except BlockingIOError:
                break
            except OSError as error:
                # One that went away again, or no descriptor left for it.
                self._complaints.warn("accept", f"a connection could not be accepted ({error.strerror})")
                break
            try:
                stream = self._wrap(connected)
            except OSError as error:  # It went away before anybody looked, which TLS does not like.
                connected.close()
                self._complaints.warn("accept", f"a connection was gone before it was taken up ({error.strerror})")
                continue
            anybody = True
            name = f"{address[0]} port {address[1]}" if address and isinstance(address, tuple) else "a program"
            self._waiting.append(_Waiting(Caller(stream, name), stream))
            readable.watch(stream.reader, selectors.EVENT_READ)
            if len(self._waiting) > _MAX_WAITING:
                self._dismiss(self._waiting[0], readable, "said nothing and had to make room for others who connected")
        return anybody

    def _takes_over(self, waiting: "_Waiting", caller: Caller | None, readable: Watch) -> bool:
        try:
            if isinstance(waiting.stream, TlsStream):
                waiting.caller.proven = waiting.stream.handshake()
                return waiting.caller.proven
            return waiting.caller.prove() or caller is None
        except CallerLeft as left:
            self._dismiss(waiting, readable, str(left))
        except OSError as error:
            self._dismiss(waiting, readable, f"failed at TLS ({getattr(error, 'reason', None) or error})")
        return False

    def _dismiss(self, waiting: "_Waiting", readable: Watch, why: str) -> None:
        self._waiting.remove(waiting)
        readable.watch(waiting.caller.stream.reader, 0)
        waiting.caller.close()
        if why:
            self._complaints.warn("dismissed", f"{waiting.caller.name} {why}")

    def close(self) -> None:
        for waiting in self._waiting:
            waiting.caller.close()
        self._listening.close()
        self._closed()


class _Waiting(NamedTuple):
    caller: Caller
    stream: SocketStream | TlsStream
