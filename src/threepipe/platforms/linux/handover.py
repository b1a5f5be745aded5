"""The connection by which one process hands a running device over to another: messages, descriptors and memory.

It is a Unix socket of whole messages (SOCK_SEQPACKET). Both ends check the other's user, as the kernel reports it, and
serve their own user and root alone. Knows nothing of what is handed over.
"""

import sys

assert sys.platform == "linux"

import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from threepipe.errors import EndpointError, ThreepipeError
from threepipe.net.connect import close_on_error, remover, turn_at
from threepipe.platforms.linux import wire

__all__ = ["Link", "accept_handover", "connect_handover", "listen_handover"]

_PIECE = 1 << 16  # Bytes of memory in a message.
_UCRED = struct.Struct("iII")  # struct ucred: process, user and group.
_MODE = 0o600
_NOT_JSON = (ValueError, RecursionError)


def listen_handover(path: Path) -> tuple[socket.socket, Callable[[], None]]:
    """Listen at `path`, where this user and root may connect. Return the socket and a function that removes its file.

    Replaces the file of a process that was killed. Raises `EndpointError`.
    """
    text = os.fspath(path)
    try:
        with close_on_error(_unix()) as listening, turn_at(text):
            if path.is_socket() and _is_stale(text):
                path.unlink()
            before = os.umask(0o777 & ~_MODE)
            try:
                listening.bind(text)
            finally:
                os.umask(before)
            listening.listen()
            return listening, remover(text)
    except OSError as error:
        raise EndpointError(error.errno, f"{path}: {error.strerror or error}") from None


def accept_handover(listening: socket.socket) -> "Link":
    """Return the next connection. Raises `OSError`, and `EndpointError` for that of another user, which it closes."""
    peer, _ = listening.accept()
    with close_on_error(peer):
        link = Link(peer)
        try:
            link.check_user()
        except EndpointError as error:
            link.send_error(error)
            raise
        return link


def connect_handover(path: Path, seconds: float) -> "Link":
    """Return a connection to the process that listens at `path`; wait `seconds` at most. Raises `EndpointError`."""
    try:
        with close_on_error(_unix()) as peer:
            peer.settimeout(seconds)
            peer.connect(os.fspath(path))
            link = Link(peer)
            link.check_user()
            return link
    except OSError as error:
        raise EndpointError(error.errno, f"{path}: {error.strerror or error}") from None


class Link:
    """A `threepipe.backend.HandoverLink`."""

    def __init__(self, peer: socket.socket) -> None:
        """Take over a connected socket."""
        self._peer = peer
        self.pid, self.uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        """The process and the user that connected, or that began to listen."""

    def check_user(self) -> None:
        """Raise `EndpointError` unless the other process is this user's, or root's."""
        if self.uid not in (os.geteuid(), 0):
            text = f"user {self.uid} may not take part in a takeover of a device of user {os.geteuid()}"
            raise EndpointError(errno.EPERM, text)

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a message with copies of descriptors."""
        try:
            wire.send(self._peer, message, descriptors)
        except OSError as error:
            raise _ended(error) from None

    def receive(self, seconds: float | None) -> tuple[dict[str, Any], list[int]]:
        """Return a message and its descriptors, or raise the error in it; wait `seconds` at most (None: forever)."""
        self._peer.settimeout(seconds)
        try:
            message, numbers = wire.receive(self._peer)
        except TimeoutError:
            raise EndpointError(errno.ETIMEDOUT, f"the other process has not answered for {seconds:.0f} s") from None
        except OSError as error:
            raise _ended(error) from None
        except _NOT_JSON:
            raise EndpointError(errno.EPROTO, "the other process does not send messages of threepipe") from None
        try:
            if message is None:
                raise _ended(OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
            return wire.answer_of(message, "the other process"), numbers
        except BaseException:
            wire.close_all(numbers)
            raise

    def send_error(self, error: Exception) -> None:
        """Have `receive` raise this error at the other end, if that is still there."""
        with suppress(EndpointError):
            self.send(wire.encode_error(error))

    def send_memory(self, memory: bytearray) -> None:
        """Send bytes, without a copy in this process."""
        view = memoryview(memory)
        try:
            for start in range(0, len(view), _PIECE):
                self._peer.send(view[start : start + _PIECE])
        except OSError as error:
            raise _ended(error) from None

    def receive_memory(self, size: int, seconds: float) -> bytearray:
        """Return `size` bytes that `send_memory` sent."""
        memory = bytearray(size)
        view, used = memoryview(memory), 0
        self._peer.settimeout(seconds)
        try:
            while used < size:
                received = self._peer.recv_into(view[used : used + _PIECE])
                if not received:
                    raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
                used += received
        except OSError as error:
            raise _ended(error) from None
        return memory

    def revoke(self) -> dict[str, Any] | None:
        """Refuse further messages. Return the one that has arrived, if any.

        The kernel puts a message into the queue or refuses it, so the other process knows which.
        """
        self._peer.shutdown(socket.SHUT_RD)
        self._peer.setblocking(False)
        try:
            message, numbers = wire.receive(self._peer)
        except (OSError, *_NOT_JSON):
            return None
        wire.close_all(numbers)
        return message

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there is a message, or no other process any more."""
        return self._peer.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._peer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unix() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _is_stale(path: str) -> bool:
    with _unix() as probe:
        probe.setblocking(False)  # If its queue is full, there is a listener.
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _ended(error: OSError) -> ThreepipeError:
    if isinstance(error, TimeoutError):
        return EndpointError(errno.ETIMEDOUT, "the other process has not answered in time")
    return EndpointError(error.errno, f"the other process has ended, or gone back: {error.strerror or error}")
