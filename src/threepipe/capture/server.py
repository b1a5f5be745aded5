"""The server of a running pipe, through which `client` finds the pipe, and gets its counts and packets.

One thread serves all clients. No client slows the pipe down: packets that a client is too slow for are dropped, and
the statistics blocks that it gets count them.
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
from contextlib import ExitStack, contextmanager
from pathlib import Path

from threepipe.backend import CapturedBundle
from threepipe.capture.client import REQUEST, STATUS_REQUEST, SUFFIX
from threepipe.capture.pcapng_blocks import file_header, packet_blocks, statistics_block
from threepipe.capture.status import PipeStatus, Traffic, emit
from threepipe.capture.tap import Taps
from threepipe.errors import ThreepipeError
from threepipe.net.accept import Acceptor
from threepipe.net.connect import listen_unix
from threepipe.net.doorbell import Doorbell
from threepipe.platforms import is_private, runtime_folder

__all__ = ["serve_captures"]

_log = logging.getLogger("threepipe.capture")

_MAX_CLIENTS = 16
_MAX_PIPES = 99  # In one process.
_MAX_QUEUED = 1 << 22  # Bytes that wait for one client.
_MAX_CHUNKS = 64  # Queue entries that one client is sent before the next client's turn.
_FLUSH_TIMEOUT = 1.0  # Seconds that clients get for the rest, when the pipe has ended.


@contextmanager
def serve_captures(
    taps: Taps,
    left: str,
    right: str,
    folder: Path | None = None,
    status: Callable[[], PipeStatus] = lambda: PipeStatus(0, Traffic(), Traffic()),
) -> Iterator[None]:
    """Let clients find and capture the pipe with these `taps` while the block runs, by the addresses of its ends.

    `status` returns the pipe's counts, and is called in another thread. If serving fails, log the reason and run the
    block without it.
    """
    folder = folder or runtime_folder()
    with ExitStack() as serving:
        if folder is not None:
            try:
                serving.enter_context(_serving(folder, taps, left, right, status))
            except (ThreepipeError, OSError, RuntimeError) as error:  # The latter if no thread can be started.
                _log.info("this pipe cannot be captured from outside: %s", error)
        yield


@contextmanager
def _serving(folder: Path, taps: Taps, left: str, right: str, status: Callable[[], PipeStatus]) -> Iterator[None]:
    with ExitStack() as undo:
        listener, remove = _listen(folder)
        undo.callback(listener.close)
        undo.callback(remove)
        server = _Server(listener, taps, left, right, status)
        undo.callback(server.close)
        thread = threading.Thread(target=server.serve, name="threepipe-captures", daemon=True)
        thread.start()
        undo.callback(thread.join)
        undo.callback(server.end)
        undo.callback(remove)  # First, so that no client comes any more.
        yield


def _listen(folder: Path) -> tuple[socket.socket, Callable[[], None]]:
    """Listen at the first free path of this process; return the socket and a function that removes the path."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_private(folder):
        raise OSError(f"other users may open {folder}; run: chmod 700 {folder}")
    for number in range(1, _MAX_PIPES + 1):
        path = folder / f"{os.getpid()}{f'-{number}' if number > 1 else ''}{SUFFIX}"
        try:
            listener, remove = listen_unix(str(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            listener.setblocking(False)
            return listener, remove
    raise OSError(f"this process already runs {_MAX_PIPES} pipes")


class _Client:
    """A connection to a client, and the queue of bytes for it.

    The pipe's threads call `sink`; only the server's thread calls the other methods.
    """

    def __init__(self, connection: socket.socket, wake: Callable[[], None]) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.requested = False
        """True once the client has asked for packets."""
        self.leaving = False
        """True once nothing is queued any more: the rest is sent, then the connection ends."""
        self._wake = wake
        self._lock = threading.Lock()
        self._queue: deque[bytes | memoryview] = deque()
        self._queued = 0
        self._packets = self._dropped = self._reported = 0

    def put(self, data: bytes) -> None:
        """Queue bytes."""
        with self._lock:
            self._queue.append(data)
            self._queued += len(data)

    def sink(self, bundle: CapturedBundle) -> None:
        """Queue packets, or drop and count them if there is no room."""
        blocks = packet_blocks([bundle])
        with self._lock:
            self._packets += len(bundle.packets)
            if self._queued + len(blocks) > _MAX_QUEUED:
                self._dropped += len(bundle.packets)
                return
            if self._dropped != self._reported:
                blocks = self._statistics(bundle.time_ns) + blocks
            was_empty = not self._queue
            self._queue.append(blocks)
            self._queued += len(blocks)
        if was_empty:
            self._wake()

    def _statistics(self, time_ns: int) -> bytes:
        self._reported = self._dropped
        return statistics_block(time_ns, self._packets, self._dropped)

    def flush(self) -> bool:
        """Send as much as the system accepts; return True if the queue is empty. Raises `OSError` on a disconnect."""
        for _ in range(_MAX_CHUNKS):
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
        """Queue the final counts: the client wants no more packets, or the pipe has ended."""
        if self.requested and not self.leaving:
            self.put(self._statistics(time.time_ns()))
        self.leaving = True


class _Server:
    """The loop over all clients, which runs in a thread of its own from `serve` to `end`."""

    def __init__(
        self, listener: socket.socket, taps: Taps, left: str, right: str, status: Callable[[], PipeStatus]
    ) -> None:
        self._listener = listener
        self._warned = False
        self._taps = taps
        self._status = status
        self._interface = f"{left} {right}"
        self._greeting = json.dumps({"pid": os.getpid(), "left": left, "right": right}).encode() + b"\n"
        self._clients: list[_Client] = []
        self._bell = Doorbell()
        self._selector = selectors.DefaultSelector()
        self._acceptor = Acceptor(listener)
        self._ended = threading.Event()

    def serve(self) -> None:
        """Serve clients until `end`, then send the rest of their queues."""
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while not self._ended.is_set():
            for key, _ in self._selector.select():
                if key.fileobj is self._bell:
                    self._bell.clear()
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._clients:  # Accepting another one may have removed it just now.
                    self._receive(key.data)
            self._flush_all()
        self._finish()

    def _finish(self) -> None:
        """Send the rest of the queues, as far as the clients read it in time."""
        self._selector.unregister(self._bell)
        self._selector.unregister(self._listener)
        for client in self._clients:
            self._taps.remove(client.sink)
            client.leave()
        deadline = time.monotonic() + _FLUSH_TIMEOUT
        self._flush_all()
        while self._clients and (remaining := deadline - time.monotonic()) > 0:
            self._selector.select(remaining)
            self._flush_all()

    def end(self) -> None:
        """Have `serve` return."""
        self._ended.set()
        self._bell.ring()

    def close(self) -> None:
        """Close all sockets but the listening one. Called after `serve` has returned."""
        for client in self._clients:
            client.socket.close()
        self._selector.close()
        self._acceptor.close()
        self._bell.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._acceptor.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            if not self._warned:
                self._warned = True
                _log.warning("a capture was refused: %s", error)
            return
        self._warned = False
        if len(self._clients) == _MAX_CLIENTS:
            idle = next((client for client in self._clients if not client.requested), None)
            if idle is None:
                _log.warning("a capture was refused: %d are running already", _MAX_CLIENTS)
                connection.close()
                return
            self._remove(idle)
        client = _Client(connection, self._bell.ring)
        self._clients.append(client)
        client.put(self._greeting)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _receive(self, client: _Client) -> None:
        """Handle a request or the end of input; do nothing if the socket has only become writable."""
        try:
            data = client.socket.recv(len(REQUEST))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data == REQUEST and not client.requested:
            client.requested = True
            client.put(file_header(self._interface))
            self._taps.add(client.sink)
        elif data == STATUS_REQUEST and not client.requested:
            client.put(emit(self._status()))
        elif not data and client.requested:
            self._taps.remove(client.sink)
            client.leave()
        else:
            self._remove(client)

    def _flush_all(self) -> None:
        for client in list(self._clients):
            self._flush(client)

    def _flush(self, client: _Client) -> None:
        try:
            done = client.flush()
        except OSError:
            done = client.leaving = True
        if done and client.leaving:
            self._remove(client)
        else:
            # The end of a client's input would wake the selector again and again, so it is not waited for twice.
            events = 0 if client.leaving else selectors.EVENT_READ
            events |= 0 if done else selectors.EVENT_WRITE
            if self._selector.get_key(client.socket).events != events:
                self._selector.modify(client.socket, events, client)

    def _remove(self, client: _Client) -> None:
        self._taps.remove(client.sink)
        self._selector.unregister(client.socket)
        self._clients.remove(client)
        client.socket.close()
