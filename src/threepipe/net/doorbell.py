"""A flag that threads, selectors and event loops can wait for. Knows nothing of packets."""

import errno
import io
import os
import selectors
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from threepipe.net.forks import call_in_child
from threepipe.net.notify import call_soon

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["Doorbell", "patience"]

_PATIENCE = 0.2  # Seconds.
_NO_SOCKETS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""The errors of a system without connected sockets, which is Python in a browser."""


def patience(timeout: float | None) -> float | None:
    """Return how many seconds to wait at a time for a wait of `timeout` seconds (None: forever).

    That is all of it, but at most a fifth of a second in the main thread on Windows, where Python handles
    Ctrl-C only between waits.
    """
    if os.name == "nt" and threading.current_thread() is threading.main_thread():
        return _PATIENCE if timeout is None else min(timeout, _PATIENCE)
    return timeout


class Doorbell:
    """A flag whose descriptor is readable while it is set, which is while it was rung or is held. Thread-safe.

    It is a connected pair of sockets, as every system and event loop can wait for those, or a pipe in a browser.
    """

    def __init__(self) -> None:
        self._reader, self._writer = _pair()
        self._lock = threading.Lock()
        self._rung = self._held = self._stuck = False
        self._left_behind = False
        self._listeners: list[Callable[[], None]] = []
        call_in_child(self, Doorbell._leave_behind)

    def ring(self, *, for_ever: bool = False) -> None:
        """Set the flag until `clear`, or if `for_ever`, until `close`. Every waiter wakes, now and later."""
        with self._lock:
            self._stuck = self._stuck or for_ever
            self._change(rung=True, held=self._held)

    def clear(self) -> None:
        """Take back `ring`, unless it was for ever."""
        with self._lock:
            self._change(rung=self._stuck, held=self._held)

    def hold(self, held: bool) -> None:
        """Keep the flag set while `held`, whatever `ring` and `clear` say."""
        with self._lock:
            self._change(rung=self._rung, held=held)

    def _change(self, *, rung: bool, held: bool) -> None:
        before, after = self._rung or self._held, rung or held
        self._rung, self._held = rung, held
        if self._left_behind:
            return
        if after and not before:
            self._writer.send(b"\0")
            for listener in self._listeners:
                listener()
            self._listeners.clear()
        elif before and not after:
            self._reader.recv(1)

    def fileno(self) -> int:
        """Return the descriptor that is readable while the flag is set."""
        return self._reader.fileno()

    def wait(self, timeout: float | None) -> None:
        """Wait until the flag is set, `timeout` seconds (None: forever) at most; perhaps return earlier."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            selector.select(patience(timeout))

    def notify(self, loop: "AbstractEventLoop", callback: Callable[[], None]) -> Callable[[], None]:
        """Have `loop` call `callback` once the flag is set. Return a function that cancels this.

        Needs no descriptor, which Windows' Proactor event loop could not wait for.
        """
        listener = partial(call_soon, loop, callback)
        with self._lock:
            if self._rung or self._held:
                listener()
            else:
                self._listeners.append(listener)
        return partial(self._forget, listener)

    def _leave_behind(self) -> None:
        """Close this copy in a forked child: it must neither ring nor clear the parent's, by the same sockets."""
        self._lock = threading.Lock()
        self._left_behind = True
        self.close()

    def _forget(self, listener: Callable[[], None]) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def close(self) -> None:
        """Close the descriptors. No thread may wait any more."""
        self._reader.close()
        self._writer.close()


class _PipeEnd(io.FileIO):
    """An end of a pipe, with the methods of a socket."""

    def recv(self, size: int) -> bytes | None:
        return self.read(size)

    def send(self, data: bytes) -> int | None:
        return self.write(data)


def _pair() -> tuple[socket.socket | _PipeEnd, socket.socket | _PipeEnd]:
    """Return a descriptor to read and one to write."""
    try:
        reader, writer = socket.socketpair()
    except OSError as error:
        if error.errno not in _NO_SOCKETS:
            raise
        numbers = os.pipe()
        return _PipeEnd(numbers[0], "r"), _PipeEnd(numbers[1], "w")
    reader.setblocking(False)
    return reader, writer
