"""The socket by which a device is managed: /var/run/wireguard/NAME.sock, where wg(8) and its like look for it.

One thread serves it. A client that says nothing is waited for along with the others, and keeps nobody out. Knows the
text of `uapi` and a device's `configure` and `status`, no more.
"""

import contextlib
import errno
import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from threepipe.errors import EndpointError, InvalidSetting, ThreepipeError
from threepipe.net.doorbell import Doorbell
from threepipe.wireguard.settings import Change, Status
from threepipe.wireguard.uapi import UapiError, emit_status, parse_change, parse_status

__all__ = ["FOLDER", "UapiServer", "ask", "inherit", "listen", "names", "status_of", "stop_listening", "take_down"]

FOLDER = Path("/var/run/wireguard")
_LONGEST = 1 << 24  # Bytes of a request: some 100,000 peers.
_MOST_CLIENTS = 64
_LOOK = 1.0  # Seconds after which it is known that the socket's file is gone.
_PIECE = 1 << 16
_PATIENCE = 10.0  # Seconds that a device may take to answer.


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


def inherit(number: str) -> socket.socket:
    """The listening Unix socket that whoever started this process left open as the descriptor `number`.

    Raises `InvalidSetting` where it is no such thing.
    """
    try:
        inherited = socket.socket(fileno=int(number))
    except (ValueError, OSError):
        raise InvalidSetting(f"{number!r} is no descriptor of a socket that was left open") from None
    # A family that Python does not know is a number here.
    if getattr(inherited.family, "name", "") != "AF_UNIX" or not inherited.getsockname():
        inherited.detach()  # It is not ours to close.
        raise InvalidSetting(f"descriptor {number} is no Unix socket with a file; wg(8) could not find it")
    return inherited


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
            _connect(probe, path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True


def _connect(client: socket.socket, path: Path) -> None:
    """Connect, and wait no longer than for an answer where many others do. Raises `OSError`."""
    # Not by settimeout, with which a queue that is full for a moment is an error (unix(7)).
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(_PATIENCE), 0))
    client.connect(str(path))


def ask(name: str, request: str, folder: Path = FOLDER) -> str:
    """The answer of the device `name` to `request`. Raises `EndpointError` where there is none of that name."""
    path = folder / f"{name}.sock"
    with _unix_socket() as client:
        try:
            _connect(client, path)
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


def status_of(name: str, folder: Path = FOLDER) -> Status:
    """How the device `name` is, of any implementation. Raises `EndpointError`."""
    try:
        return parse_status(ask(name, "get=1\n\n", folder))
    except UapiError as error:
        raise EndpointError(error.errno, f"{name}: {error}") from None


def take_down(name: str, seconds: float, folder: Path = FOLDER) -> bool:
    """Have the device `name` end, by removing its file; whether it has in that time, with all that it did undone.

    That is known of ours alone; others may do some of it when they do not listen any more. Raises `EndpointError`.
    """
    path = folder / f"{name}.sock"
    with _unix_socket() as client:
        try:
            try:
                _connect(client, path)
            finally:
                path.unlink(missing_ok=True)
            client.settimeout(seconds)
            return not client.recv(1)
        except TimeoutError:
            return False
        except (ConnectionResetError, ConnectionRefusedError):
            return True  # It has ended, or had before.
        except OSError as error:
            raise EndpointError(error.errno, f"{path}: {error.strerror or error}") from None


class UapiServer:
    """Serves `listening`, which it takes over, until `close`; the file goes with it."""

    def __init__(
        self,
        listening: socket.socket,
        device: Manageable,
        gone: Callable[[], None],
        waiting: contextlib.ExitStack | None = None,
    ) -> None:
        """`gone` is called, once, when somebody has removed the file, which is how wg-quick ends a device.

        Who is connected when it ends stays so until `waiting` is closed, and sees by that when all is undone; without
        that he is not kept.
        """
        self._device, self._gone, self._waiting = device, gone, waiting
        self._listening = listening
        listening.setblocking(False)
        self._path = Path(listening.getsockname())
        self._mine = self._identity()
        self._bell = Doorbell()
        self._clients: list[_Client] = []
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
                    elif isinstance(key.data, _Client):
                        self._serve(key.data)
        finally:
            self._end()

    def _end(self) -> None:
        if self._mine is not None and self._identity() == self._mine:
            self._path.unlink(missing_ok=True)
        self._selector.close()
        # Among them who is connected and was not taken yet: he hears when there is nobody who listens any more.
        for connected in (self._listening, *(client.socket for client in self._clients)):
            if self._waiting is None:
                connected.close()
            else:
                self._waiting.callback(connected.close)
        self._clients.clear()

    def _take_client(self) -> None:
        try:
            connected, _ = self._listening.accept()
        except OSError:
            return  # He left before.
        if len(self._clients) >= _MOST_CLIENTS:
            self._drop(self._clients[0])  # Who has been here the longest.
        client = _Client(connected)
        self._clients.append(client)
        self._selector.register(connected, selectors.EVENT_READ, client)

    def _drop(self, client: "_Client") -> None:
        self._clients.remove(client)
        self._selector.unregister(client.socket)
        client.socket.close()

    def _serve(self, client: "_Client") -> None:
        """Take what he says, or have him take what he is told; while he does not take that, he is not listened to."""
        if client not in self._clients:
            return  # Dropped while it was ready.
        try:
            if not client.answer and not client.read():
                self._drop(client)
                return
            while client.write() and (lines := client.next_request()) is not None:
                client.answer += self._do(lines).encode()
        except OSError:
            self._drop(client)
            return
        self._selector.modify(client.socket, selectors.EVENT_WRITE if client.answer else selectors.EVENT_READ, client)

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
        except (ThreepipeError, OSError) as error:
            number = getattr(error, "errno", None) or errno.EINVAL
        return f"{answer}errno={number}\n\n"


class _Client:
    """A connection: what he asked for so far, and what he has not taken yet of the answers."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self.socket = connected
        self.answer = bytearray()
        self._request = bytearray()
        self._looked_at = 0  # Bytes of it in which no end was found.

    def read(self) -> bool:
        """Take what came; False where he is done, or asks for too much. Raises `OSError` where he is gone."""
        try:
            piece = self.socket.recv(_PIECE)
        except BlockingIOError:
            return True
        self._request += piece
        return bool(piece) and len(self._request) <= _LONGEST

    def next_request(self) -> list[str] | None:
        """The lines of a request that came as a whole, or None."""
        end = self._request.find(b"\n\n", max(self._looked_at - 1, 0))
        if end < 0:
            self._looked_at = len(self._request)
            return None
        lines = self._request[:end].decode(errors="replace").split("\n")
        del self._request[: end + 2]
        self._looked_at = 0
        return lines

    def write(self) -> bool:
        """Whether he has taken all answers by now. Raises `OSError` where he is gone."""
        try:
            while self.answer:
                del self.answer[: self.socket.send(self.answer)]
        except BlockingIOError:
            pass
        return not self.answer


def names(folder: Path = FOLDER) -> list[str]:
    """The devices that are managed here."""
    with contextlib.suppress(OSError):
        return sorted(path.stem for path in folder.iterdir() if path.suffix == ".sock" and path.is_socket())
    return []
