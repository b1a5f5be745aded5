"""The endpoints of `echo` and `discard`, named after the services of RFC 862 and RFC 863."""

import threading
from collections import deque
from itertools import islice

from threepipe.bundle import Bundle
from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.echo import echo_reply
from threepipe.net.watch import EndpointPort

__all__ = ["DiscardPort", "EchoPort"]

_MAX_REPLIES = 1024  # Replies that wait to be received.


class EchoPort(EndpointPort):
    """A port that answers ICMP echo requests, IPv4 and IPv6, and drops every other packet."""

    def __init__(self) -> None:
        super().__init__()
        self._replies: deque[memoryview] = deque()
        self._lock = threading.Lock()
        self.writable.ring()

    def receive(self) -> Bundle:
        with self._lock:
            replies = list(islice(self._replies, MAX_BUNDLE))
            for _ in replies:
                self._replies.popleft()
            self._settle()
        return Bundle.of_views(replies)

    def send(self, bundle: Bundle) -> Bundle:
        with self._lock:
            room = _MAX_REPLIES - len(self._replies)
            for packet in islice(bundle, room):
                if reply := echo_reply(packet):
                    self._replies.append(memoryview(bytearray(reply)))
            self._settle()
        return bundle[room:]

    def _settle(self) -> None:
        """Set or clear `readable` and `writable`."""
        (self.readable.ring if self._replies else self.readable.clear)()
        (self.writable.ring if len(self._replies) < _MAX_REPLIES else self.writable.clear)()

    def stop(self) -> None:
        """Do nothing: there is no link."""


class DiscardPort(EndpointPort):
    """A port that accepts every packet and has none to receive."""

    def __init__(self) -> None:
        super().__init__()
        self.writable.ring()

    def receive(self) -> Bundle:
        return Bundle()

    def send(self, bundle: Bundle) -> Bundle:
        return Bundle()

    def stop(self) -> None:
        """Do nothing: there is no link."""
