"""The management socket of a device: /var/run/wireguard/NAME.sock, where wg(8) and other tools look for it.

The server has one thread for all its clients, so a silent or slow client keeps no other one waiting. Knows the text of
`uapi`, and of a device only `configure` and `status`.
"""

import contextlib
import errno
import logging
import os
import selectors
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from threepipe.errors import EndpointError, InvalidSetting, ThreepipeError
from threepipe.net.accept import Acceptor
from threepipe.net.connect import listen_unix, reach_unix, remover, turn_at
from threepipe.net.doorbell import Doorbell
from threepipe.wireguard.settings import Change, Status, check_device_name, is_device_name
from threepipe.wireguard.uapi import UapiError, emit_status, parse_change, parse_status

__all__ = [
    "FOLDER",
    "UapiServer",
    "ask",
    "inherit",
    "listen",
    "make_folder",
    "names",
    "status_of",
    "stop_listening",
    "take_down",
]

log = logging.getLogger("threepipe")

FOLDER = Path("/var/run/wireguard")
_MAX_REQUEST = 1 << 24  # Bytes: some 100,000 peers.
_MAX_CLIENTS = 64
_CHECK_INTERVAL = 1.0  # Seconds between checks that the socket's file still exists.
_READ_SIZE = 1 << 16
_ANSWER_TIMEOUT = 10.0  # Seconds.
_NOT_ALLOWED = "run this as root, or as the user whose device it is"


def names(folder: Path = FOLDER) -> list[str]:
    """Return the names of the devices that have a socket in `folder`, without names that no device can have here.

    Raises `EndpointError` if this user may not look into the folder.
    """
    try:
        paths = [path for path in folder.iterdir() if path.suffix == ".sock" and _is_socket(path)]
    except (FileNotFoundError, NotADirectoryError):
        return []  # There has been no device since the system started.
    except OSError as error:
        raise EndpointError(error.errno, f"{error.filename}: {error.strerror}{_advice(error, _NOT_ALLOWED)}") from None
    return sorted(path.stem for path in paths if is_device_name(path.stem))


def _is_socket(path: Path) -> bool:
    """Return True if `path` is a socket, and False if it is gone. Raises `OSError`, unlike Path.is_socket()."""
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _advice(error: OSError, privilege: str, other: str = "") -> str:
    """Return advice for `error`: for a lack of privilege, or for another reason."""
    text = privilege if error.errno in (errno.EACCES, errno.EPERM) else other
    return f"; {text}" if text else ""


def status_of(name: str, folder: Path = FOLDER) -> Status:
    """Return the status of a device of any implementation. Raises `EndpointError` and `InvalidSetting`."""
    try:
        return parse_status(ask(name, "get=1\n\n", folder))
    except UapiError as error:
        raise EndpointError(error.errno, f"{name}: {error}") from None


def ask(name: str, request: str, folder: Path = FOLDER) -> str:
    """Return the answer of a device to `request`.

    Raises `EndpointError`, also if there is no such device, and `InvalidSetting` for an invalid name.
    """
    path = _path(name, folder)
    try:
        with reach_unix(str(path)) as client:
            client.settimeout(_ANSWER_TIMEOUT)
            client.sendall(request.encode())
            answer = bytearray()
            while not answer.endswith(b"\n\n"):
                if not (piece := client.recv(_READ_SIZE)):
                    break
                answer += piece
    except OSError as error:
        advice = _advice(error, _NOT_ALLOWED, f"is {name} running? threepipe wg show lists the devices")
        raise EndpointError(error.errno, f"{path}: {error.strerror or error}{advice}") from None
    return answer.decode(errors="replace")


def take_down(name: str, seconds: float, folder: Path = FOLDER) -> bool:
    """Have a device end by removing its socket's file. Return True if it did within `seconds`, with its cleanup.

    Only threepipe's own devices tell that the cleanup is done; others may do some of it after they stop listening.
    Raises `EndpointError` and `InvalidSetting`.
    """
    path = _path(name, folder)
    try:
        with turn_at(str(path)):  # Else this could remove the file of the next device of that name.
            try:
                client = reach_unix(str(path))
            finally:
                path.unlink(missing_ok=True)
        with client:
            client.settimeout(seconds)
            return not client.recv(1)
    except TimeoutError:
        return False
    except (ConnectionResetError, ConnectionRefusedError):
        return True  # It has ended, perhaps long ago.
    except OSError as error:
        raise EndpointError(error.errno, f"{path}: {error.strerror or error}{_advice(error, _NOT_ALLOWED)}") from None


class Listening(socket.socket):
    """The listening socket of a device; `remove` removes its file, unless another device has replaced it."""

    def __init__(self, plain: socket.socket, remove: Callable[[], None]) -> None:
        super().__init__(fileno=plain.detach())
        self.remove = remove


def listen(name: str, folder: Path = FOLDER) -> Listening:
    """Listen on the management socket of the device `name`, to which only root may connect.

    A stale file is replaced. Raises `EndpointError`, also if a device of that name is running, and `InvalidSetting`.
    """
    path = _path(name, folder)
    make_folder(folder)
    try:
        return Listening(*listen_unix(str(path), 0o700))  # The mode of wireguard-go.
    except EndpointError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        text = f"{path}: a device of that name is running; take it down with: threepipe wg down {name}"
        raise EndpointError(error.errno, text) from None


def make_folder(folder: Path = FOLDER) -> None:
    """Make the folder of the devices' sockets and journals, unless it exists.

    Raises `EndpointError`, also if this user may not make files there.
    """
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    except OSError as error:
        advice = _advice(error, f"run this as root, or have root give {folder} to this user")
        raise EndpointError(error.errno, f"{error.filename}: {error.strerror}{advice}") from None


def inherit(number: str) -> Listening:
    """Return the listening Unix socket that the parent process left open as descriptor `number`.

    Raises `InvalidSetting`; the descriptor stays open then.
    """
    try:
        inherited = socket.socket(fileno=int(number))
    except (ValueError, OSError):
        raise InvalidSetting(f"{number!r} is not a descriptor of an open socket; leave WG_UAPI_FD unset") from None
    # The family is a plain number if Python does not know it.
    try:
        if getattr(inherited.family, "name", "") == "AF_UNIX":
            return Listening(inherited, remover(inherited.getsockname()))
    except OSError:
        pass  # There is no file.
    inherited.detach()
    raise InvalidSetting(f"descriptor {number} is not a Unix socket bound to a file, so wg(8) could not find it")


def stop_listening(listening: Listening) -> None:
    """Undo `listen`; do nothing if a server has closed the socket."""
    if listening.fileno() >= 0:
        listening.remove()
        listening.close()


def _path(name: str, folder: Path) -> Path:
    check_device_name(name)
    if not hasattr(socket, "AF_UNIX"):
        text = "devices are managed by Unix sockets, which Python does not have on this system"
        raise EndpointError(errno.ENOTSUP, text)
    return folder / f"{name}.sock"


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
    ) -> None:
        """Take over `listening`. `gone` is called once if the file is removed, which is how wg-quick ends a device.

        At the end, the connections of clients are moved to `waiting`, so that a client that waits for the end of the
        connection sees when the cleanup is done. Without `waiting` they are closed.
        """
        self._device, self._gone, self._waiting = device, gone, waiting
        self._listening = listening
        listening.setblocking(False)
        self._acceptor = Acceptor(listening)
        self._warned = False
        self._path = Path(listening.getsockname())
        self._own_file = self._file_identity()
        self._bell = Doorbell()
        self._clients: list[_Client] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="threepipe-uapi", daemon=True)
        self._thread.start()

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
            while not self._closed:
                ready = self._selector.select(_CHECK_INTERVAL)
                if self._closed:
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
                log.warning(f"{self._path}: refused a client, as the limit of open files is reached; raise ulimit -n")
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
            log.exception(
                f"{self._path}: a request failed, by a defect of threepipe"
            )  # The device must stay manageable.
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
