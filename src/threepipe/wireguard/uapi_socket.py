"""The socket by which a device is managed: /var/run/wireguard/NAME.sock, where wg(8) and its like look for it.

One thread serves it. A client that says nothing is waited for along with the others, and keeps nobody out. Knows the
text of `uapi` and a device's `configure` and `status`, no more.
"""

import contextlib
import errno
import os
import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from threepipe.doorbell import Doorbell
from threepipe.errors import EndpointError, ThreepipeError
from threepipe.wireguard.settings import Change, Status
from threepipe.wireguard.uapi import UapiError, emit_status, parse_change

__all__ = ["FOLDER", "UapiServer", "ask", "listen", "names", "stop_listening"]

FOLDER = Path("/var/run/wireguard")
_LONGEST = 1 << 24  # Bytes of a request: some 100,000 peers.
_MOST_CLIENTS = 64
_LOOK = 1.0  # Seconds after which it is known that the socket's file is gone.
_PIECE = 1 << 16
_PATIENCE = 10.0  # Seconds that a client may take to take his answer.


class Manageable(Protocol):
    def configure(self, change: Change) -> None: ...

    def status(self) -> Status: ...


def listen(name: str, folder: Path = FOLDER) -> socket.socket:
    """Listen where the device `name` is managed; root alone may connect.

    A file that a process left behind is replaced; where one listens, `EndpointError` says so.
    """
    path = folder / f"{name}.sock"
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    listening = _unix_socket()
    before = os.umask(0o077)
    try:
        try:
            listening.bind(str(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or _is_served(path):
                raise
            path.unlink(missing_ok=True)
            listening.bind(str(path))
        listening.listen(_MOST_CLIENTS)
    except OSError as error:
        listening.close()
        said = "a device of that name is running" if error.errno == errno.EADDRINUSE else error.strerror
        raise EndpointError(error.errno, f"{path}: {said}") from None
    finally:
        os.umask(before)
    return listening


def stop_listening(listening: socket.socket) -> None:
    """Undo `listen`, where nobody is to be served after all; harmless after a server did."""
    if listening.fileno() >= 0:
        Path(listening.getsockname()).unlink(missing_ok=True)
        listening.close()


def _unix_socket() -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise EndpointError(errno.ENOTSUP, "devices are managed by Unix sockets, and this system's Python has none")
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _is_served(path: Path) -> bool:
    with _unix_socket() as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True


def ask(name: str, request: str, folder: Path = FOLDER) -> str:
    """The answer of the device `name` to `request`. Raises `EndpointError` where there is none of that name."""
    path = folder / f"{name}.sock"
    with _unix_socket() as client:
        try:
            client.connect(str(path))  # Waits where many connect at once; with a time-out it would fail there.
            client.settimeout(_PATIENCE)
            client.sendall(request.encode())
            answer = bytearray()
            while not answer.endswith(b"\n\n"):
                if not (piece := client.recv(_PIECE)):
                    break
                answer += piece
        except OSError as error:
            raise EndpointError(error.errno, f"{path}: {error.strerror or error}; is there such a device?") from None
    return answer.decode(errors="replace")


class UapiServer:
    """Serves `listening`, which it takes over, until `close`; the file goes with it."""

    def __init__(self, listening: socket.socket, device: Manageable, gone: Callable[[], None]) -> None:
        """`gone` is called, once, when somebody has removed the file, which is how wg-quick ends a device."""
        self._device, self._gone = device, gone
        self._listening = listening
        listening.setblocking(False)
        self._path = Path(listening.getsockname())
        self._mine = self._identity()
        self._bell = Doorbell()
        self._clients: dict[socket.socket, bytearray] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="threepipe-uapi", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve nobody any more, and remove the file unless it is another's by now. May be repeated."""
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

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _run(self) -> None:
        try:
            while not self._closed:
                ready = self._selector.select(_LOOK)
                if self._closed:
                    break
                if self._mine is None or self._identity() != self._mine:
                    self._gone()
                    break
                for key, _ in ready:
                    if key.fileobj is self._listening:
                        self._take_client()
                    elif isinstance(key.fileobj, socket.socket):
                        self._serve(key.fileobj)
        finally:
            self._end()

    def _end(self) -> None:
        for client in list(self._clients):
            self._drop(client)
        if self._mine is not None and self._identity() == self._mine:
            self._path.unlink(missing_ok=True)
        self._listening.close()
        self._selector.close()

    def _take_client(self) -> None:
        try:
            client, _ = self._listening.accept()
        except OSError:
            return  # He left before.
        if len(self._clients) >= _MOST_CLIENTS:
            self._drop(next(iter(self._clients)))  # Who has been here the longest.
        client.setblocking(False)
        self._clients[client] = bytearray()
        self._selector.register(client, selectors.EVENT_READ)

    def _drop(self, client: socket.socket) -> None:
        del self._clients[client]
        self._selector.unregister(client)
        client.close()

    def _serve(self, client: socket.socket) -> None:
        request = self._clients.get(client)
        if request is None:
            return  # Dropped while it was ready.
        try:
            piece = client.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        request += piece
        while (end := request.find(b"\n\n")) >= 0:
            lines = request[:end].decode(errors="replace").split("\n")
            del request[: end + 2]
            if not self._answer(client, self._do(lines)):
                return
        if not piece or len(request) > _LONGEST:
            self._drop(client)

    def _answer(self, client: socket.socket, answer: str) -> bool:
        """Whether he took it."""
        try:
            client.settimeout(_PATIENCE)
            client.sendall(answer.encode())
            client.setblocking(False)
        except OSError:
            self._drop(client)
            return False
        return True

    def _do(self, lines: list[str]) -> str:
        """Carry out one request: its answer."""
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
        except ThreepipeError as error:
            number = getattr(error, "errno", None) or errno.EINVAL
        return f"{answer}errno={number}\n\n"


def names(folder: Path = FOLDER) -> list[str]:
    """The devices that are managed here."""
    with contextlib.suppress(OSError):
        return sorted(path.stem for path in folder.iterdir() if path.suffix == ".sock" and path.is_socket())
    return []
