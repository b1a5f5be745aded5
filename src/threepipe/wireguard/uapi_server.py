"""The server on a device's management socket (see `uapi_socket`).

It has one thread for all its clients, so a silent or slow client keeps no other one waiting. Knows the text of `uapi`,
and of a device only `configure` and `status`.
"""

import contextlib
import errno
import logging
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, Self

from threepipe.errors import ThreepipeError
from threepipe.net.accept import Acceptor
from threepipe.net.doorbell import Doorbell
from threepipe.wireguard.settings import Change, Status
from threepipe.wireguard.uapi import UapiError, emit_status, parse_change
from threepipe.wireguard.uapi_socket import Listening

__all__ = ["UapiServer"]

_log = logging.getLogger("threepipe")

_MAX_REQUEST = 1 << 24  # Bytes: some 100,000 peers.
_MAX_CLIENTS = 64
_CHECK_INTERVAL = 1.0  # Seconds between checks that the socket's file still exists.
_READ_SIZE = 1 << 16


class Manageable(Protocol):
    """A device, as far as its socket manages it."""

    def configure(self, change: Change) -> None:
        """Carry out `change`."""

    def status(self) -> Status:
        """Return the state of the device."""


class UapiServer:
    """Serves the clients of a listening socket until `close`, which removes the socket's file too."""

    def __init__(
        self,
        listening: Listening,
        device: Manageable,
        gone: Callable[[], None],
        waiting: contextlib.ExitStack | None = None,
        clients: Sequence[socket.socket] = (),
    ) -> None:
        """Take over `listening`, and `clients` that are connected already.

        `gone` is called once if the file is removed, which is how wg-quick ends a device. At the end, the connections
        of clients are moved to `waiting`, so that a client that waits for the end of the connection sees when the
        cleanup is done. Without `waiting` they are closed.
        """
        self._device, self._gone, self._waiting = device, gone, waiting
        self._listening = listening
        listening.setblocking(False)
        self._acceptor = Acceptor(listening)
        self._warned = False
        self._path = Path(listening.getsockname())
        self._own_file = self._file_identity()
        self._bell = Doorbell()
        self._clients = [_Client(connected) for connected in clients]
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)
        for client in self._clients:
            self._selector.register(client.socket, selectors.EVENT_READ, client)
        self._closed = self._suspended = False
        self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="threepipe-uapi", daemon=True)
        self._thread.start()

    def suspend(self) -> None:
        """Serve nobody until `resume`. Requests wait in the sockets."""
        self._suspended = True
        self._bell.ring()
        self._thread.join()
        self._bell.clear()

    def resume(self) -> None:
        """Go on after `suspend`."""
        self._suspended = False
        self._start()

    def share(self) -> tuple[socket.socket, list[socket.socket]]:
        """Return the listening socket and, while suspended, the clients' that another process can go on with.

        These have sent no part of a request, and miss no part of an answer.
        """
        return self._listening, [client.socket for client in self._clients if client.is_idle]

    def give_away(self) -> None:
        """Close the sockets of the suspended server, as another process serves the clients; the file stays."""
        self._listening.remove = lambda: None
        self._waiting = None
        self._closed = True
        self._end()
        self._bell.close()

    def close(self) -> None:
        """Stop serving, and remove the file unless another process has replaced it. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._bell.ring(for_ever=True)
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._bell.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _file_identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _run(self) -> None:
        try:
            while not (self._closed or self._suspended):
                ready = self._selector.select(_CHECK_INTERVAL)
                if self._closed or self._suspended:
                    break
                if self._own_file is None or self._file_identity() != self._own_file:
                    self._gone()
                    break
                for key, _ in ready:
                    if key.fileobj is self._listening:
                        self._accept()
                    elif isinstance(key.data, _Client):
                        self._serve(key.data)
        finally:
            if not self._suspended:
                self._end()

    def _end(self) -> None:
        self._listening.remove()
        self._selector.close()
        self._acceptor.close()
        # Closing the listening socket ends the connections that were not accepted yet.
        for connected in (self._listening, *(client.socket for client in self._clients)):
            if self._waiting is None:
                connected.close()
            else:
                self._waiting.callback(connected.close)
        self._clients.clear()

    def _accept(self) -> None:
        try:
            connected, _ = self._acceptor.accept()
        except OSError as error:  # The client has disconnected, or this process has no descriptor left.
            if error.errno in (errno.EMFILE, errno.ENFILE) and not self._warned:
                self._warned = True
                _log.warning(f"{self._path}: refused a client, as the limit of open files is reached; raise ulimit -n")
            return
        self._warned = False
        if len(self._clients) >= _MAX_CLIENTS:
            self._drop(self._clients[0])  # The oldest one.
        client = _Client(connected)
        self._clients.append(client)
        self._selector.register(connected, selectors.EVENT_READ, client)

    def _drop(self, client: "_Client") -> None:
        self._clients.remove(client)
        self._selector.unregister(client.socket)
        client.socket.close()

    def _serve(self, client: "_Client") -> None:
        """Read requests and write answers; while a client does not read its answers, its requests are not read.

        A client that has ended its output still gets the answers to its requests.
        """
        if client not in self._clients:
            return  # It was dropped while it was ready.
        try:
            if not client.answer and not client.ended:
                client.read()
            while client.write() and (lines := client.next_request()) is not None:
                client.answer += self._answer(lines).encode()
        except OSError:
            client.ended, client.answer = True, bytearray()
        if client.ended and not client.answer:
            self._drop(client)
            return
        self._selector.modify(client.socket, selectors.EVENT_WRITE if client.answer else selectors.EVENT_READ, client)

    def _answer(self, lines: list[str]) -> str:
        """Carry out a request and return its answer."""
        number, answer = 0, ""
        try:
            if lines == ["get=1"]:
                answer = emit_status(self._device.status())
            elif lines[0] == "set=1":
                self._device.configure(parse_change(lines[1:]))
            else:
                number = errno.EINVAL
        except UapiError as error:
            number = error.errno
        except (ThreepipeError, OSError) as error:
            number = getattr(error, "errno", None) or errno.EINVAL
        except Exception:
            # The device must stay manageable.
            _log.exception(f"{self._path}: a request failed, by a defect of threepipe")
            number = errno.EIO
        return f"{answer}errno={-number}\n\n"


class _Client:
    """The connection of a client, with a request that is not complete yet, and answers that are not sent yet."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self.socket = connected
        self.ended = False
        """True if the client sends no more."""
        self.answer = bytearray()
        self._request = bytearray()
        self._searched = 0  # Bytes of the request in which no end was found.

    @property
    def is_idle(self) -> bool:
        """True if it has sent no part of a request, and misses no part of an answer."""
        return not (self.ended or self.answer or self._request)

    def read(self) -> None:
        """Read once. Raises `OSError`, also if the request is too long."""
        try:
            piece = self.socket.recv(_READ_SIZE)
        except BlockingIOError:
            return
        self.ended = not piece
        self._request += piece
        if len(self._request) > _MAX_REQUEST:
            raise OSError(errno.EMSGSIZE, "the request is too long")

    def next_request(self) -> list[str] | None:
        """Return the lines of the next request, or None if it is not complete.

        As for wireguard-go and gotatun, the end of the connection completes a `set`.
        """
        end = self._request.find(b"\n\n", max(self._searched - 1, 0))
        if end < 0 and self.ended and self._request.startswith(b"set=1\n"):
            end = len(self._request.rstrip(b"\n"))
        if end < 0:
            self._searched = len(self._request)
            return None
        lines = self._request[:end].decode(errors="replace").split("\n")
        del self._request[: end + 2]
        self._searched = 0
        return lines

    def write(self) -> bool:
        """Send answers. Return True if all are sent. Raises `OSError`."""
        try:
            while self.answer:
                del self.answer[: self.socket.send(self.answer)]
        except BlockingIOError:
            pass
        return not self.answer
