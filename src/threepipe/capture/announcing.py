"""Announcing a running pipe, so that it can be captured from outside: the other end of `running`.

One thread serves all who read along. None of them holds up the pipe: what a slow one has no room for is dropped,
counted, and told to it.
"""

import errno
import json
import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from threepipe.backend import Seen
from threepipe.capture.running import ORDER, SUFFIX
from threepipe.capture.tap import Taps
from threepipe.capture.writing import beginning, packet_blocks, statistics_block
from threepipe.errors import ThreepipeError
from threepipe.net.connect import listen_unix
from threepipe.net.doorbell import Doorbell
from threepipe.platforms import is_private, runtime_folder

__all__ = ["Follower", "announce"]

_log = logging.getLogger("threepipe.capture")

_MOST_READERS = 16
_MOST_IN_ONE_PROCESS = 100
_FAREWELL = 1.0  # Seconds in which readers get what waits for them, when the pipe has ended.
_PAUSE = 0.1  # Seconds, after a connection that could not be accepted.
_MOST_QUEUED = 1 << 22  # Bytes that wait for one.
_TURN = 64  # Bundles that are handed over before it is another one's turn.


@contextmanager
def announce(taps: Taps, left: str, right: str, folder: Path | None = None) -> Iterator[None]:
    """Let the pipe with these `taps` be found by `running`, under the addresses of its ends, until the block ends.

    Where there is no place for it that is logged, and the pipe cannot be captured from outside.
    """
    folder = folder or runtime_folder()
    listening = None
    if folder is not None:
        try:
            listening, remove = _listen(folder)
        except (ThreepipeError, OSError) as error:
            _log.info("this pipe cannot be captured from outside: %s", error)
    if listening is None:
        yield
        return
    server = _Server(listening, taps, left, right)
    thread = threading.Thread(target=server.serve, name="threepipe-captures", daemon=True)
    thread.start()
    try:
        yield
    finally:
        remove()
        server.end()
        thread.join()
        server.close()


def _listen(folder: Path) -> tuple[socket.socket, Callable[[], None]]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_private(folder):
        raise OSError(f"{folder} is not this user's alone (chmod 700)")
    for number in range(1, _MOST_IN_ONE_PROCESS):
        path = folder / f"{os.getpid()}{f'-{number}' if number > 1 else ''}{SUFFIX}"
        try:
            listening, remove = listen_unix(str(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            listening.setblocking(False)
            return listening, remove
    raise OSError(f"this process runs {number} pipes already")


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


class _Server:
    """Runs in a thread of its own, from `serve` to `end`."""

    def __init__(self, listening: socket.socket, taps: Taps, left: str, right: str) -> None:
        self._listening = listening
        self._taps = taps
        self._interface = f"{left} {right}"
        self._greeting = json.dumps({"pid": os.getpid(), "left": left, "right": right}).encode() + b"\n"
        self._readers: list[Follower] = []
        self._bell = Doorbell()
        self._ended = threading.Event()

    def serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            selector.register(self._listening, selectors.EVENT_READ)
            while not self._ended.is_set():
                for key, _ in selector.select():
                    if key.fileobj is self._bell:
                        self._bell.clear()
                    elif key.fileobj is self._listening:
                        self._accept(selector)
                    elif key.data in self._readers:  # It may have had to go for another just now.
                        self._hear(selector, key.data)
                for reader in list(self._readers):
                    self._flush(selector, reader)
        deadline = time.monotonic() + _FAREWELL
        for reader in self._readers:
            self._taps.remove(reader.sink)
            reader.finish(deadline)

    def end(self) -> None:
        self._ended.set()
        self._bell.ring()

    def close(self) -> None:
        for reader in self._readers:
            reader.socket.close()
        self._listening.close()
        self._bell.close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            connected, _ = self._listening.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            _log.warning("a capture cannot begin: %s", error)
            self._ended.wait(_PAUSE)  # Of descriptors, say, there may be some again later.
            return
        if len(self._readers) == _MOST_READERS:
            idle = next((reader for reader in self._readers if not reader.asked), None)
            if idle is None:
                _log.warning("a capture cannot begin: there are %d already", _MOST_READERS)
                connected.close()
                return
            self._forget(selector, idle)
        reader = Follower(connected, self._bell.ring)
        self._readers.append(reader)
        reader.put(self._greeting)
        selector.register(connected, selectors.EVENT_READ, reader)

    def _hear(self, selector: selectors.BaseSelector, reader: Follower) -> None:
        """It has said something, it has left, or there is room again."""
        try:
            said = reader.socket.recv(len(ORDER))
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said == ORDER and not reader.asked:
            reader.asked = True
            reader.put(beginning(self._interface))
            self._taps.add(reader.sink)
        elif not said and reader.asked:
            self._taps.remove(reader.sink)
            reader.leave()
        else:
            self._forget(selector, reader)

    def _flush(self, selector: selectors.BaseSelector, reader: Follower) -> None:
        try:
            done = reader.flush()
        except OSError:
            done = reader.leaving = True
        if done and reader.leaving:
            self._forget(selector, reader)
        else:
            # Of one that is leaving there is nothing more to hear, which the system would tell again and again.
            events = 0 if reader.leaving else selectors.EVENT_READ
            events |= 0 if done else selectors.EVENT_WRITE
            if selector.get_key(reader.socket).events != events:
                selector.modify(reader.socket, events, reader)

    def _forget(self, selector: selectors.BaseSelector, reader: Follower) -> None:
        self._taps.remove(reader.sink)
        selector.unregister(reader.socket)
        self._readers.remove(reader)
        reader.socket.close()
