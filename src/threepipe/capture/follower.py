"""Follower: a program that captures a running pipe from outside, and what waits for it. Never holds up the pipe."""

import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from threepipe.backend import Seen
from threepipe.capture.writing import packet_blocks, statistics_block

__all__ = ["Follower"]

_MOST_QUEUED = 1 << 22  # Bytes that wait for one.
_TURN = 64  # Bundles that are handed over before it is another one's turn.


class Follower:
    """The pipe's threads call `sink`; all else is for the one thread that serves."""

    def __init__(self, connected: socket.socket, wake: Callable[[], None]) -> None:
        connected.setblocking(False)
        self.socket = connected
        self.asked = self.leaving = False
        self._wake = wake
        self._lock = threading.Lock()
        self._queue: deque[bytes | memoryview] = deque()
        self._queued = 0
        self._packets = self._dropped = self._told = 0

    def put(self, data: bytes) -> None:
        with self._lock:
            self._queue.append(data)
            self._queued += len(data)

    def sink(self, seen: Seen) -> None:
        """Take what the pipe's threads see, if there is room."""
        blocks = packet_blocks([seen])
        with self._lock:
            self._packets += len(seen.packets)
            if self._queued + len(blocks) > _MOST_QUEUED:
                self._dropped += len(seen.packets)
                return
            if self._dropped != self._told:
                blocks = self._statistics(seen.time_ns) + blocks
            was_empty = not self._queue
            self._queue.append(blocks)
            self._queued += len(blocks)
        if was_empty:
            self._wake()

    def _statistics(self, time_ns: int) -> bytes:
        self._told = self._dropped
        return statistics_block(time_ns, self._packets, self._dropped)

    def flush(self) -> bool:
        """Hand over what the system takes now; whether that was all. Raises `OSError` when it has left."""
        for _ in range(_TURN):
            with self._lock:
                if not self._queue:
                    return True
                data = self._queue.popleft()
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            with self._lock:
                self._queued -= sent
                if sent < len(data):
                    self._queue.appendleft(memoryview(data)[sent:])
                    break
        return False

    def leave(self) -> None:
        """Have the last counts wait behind the rest: it has seen enough, or there is no more."""
        if self.asked and not self.leaving:
            self.leaving = True
            self.put(self._statistics(time.time_ns()))

    def finish(self, deadline: float) -> None:
        """Hand over what waits, as far as it is taken until `deadline`."""
        self.leave()
        try:
            while not self.flush() and (remaining := deadline - time.monotonic()) > 0:
                with selectors.DefaultSelector() as selector:
                    selector.register(self.socket, selectors.EVENT_WRITE)
                    selector.select(remaining)
        except OSError:
            pass  # It has left.
