"""The management socket of a device: /var/run/wireguard/NAME.sock, where wg(8) and other tools look for it.

This module finds such sockets, asks their devices, and listens. `uapi_server` answers.
"""

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.net.connect import listen_unix, reach_unix, remover, turn_at
from threepipe.platforms.files import write_atomically
from threepipe.wireguard.settings import Change, Status, check_device_name, is_device_name
from threepipe.wireguard.uapi import UapiError, emit_change, parse_status

__all__ = [
    "FOLDER",
    "ask",
    "configure",
    "inherit",
    "listen",
    "make_folder",
    "name_file",
    "names",
    "status_of",
    "stop_listening",
    "take_down",
    "takeover_path",
]

FOLDER = Path("/var/run/wireguard")
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
    return _answer(name, "get=1\n\n", folder)


def configure(name: str, change: Change, folder: Path = FOLDER) -> None:
    """Carry out `change` at a device of any implementation. Raises `EndpointError` and `InvalidSetting`."""
    _answer(name, f"set=1\n{emit_change(change)}\n", folder)


def _answer(name: str, request: str, folder: Path) -> Status:
    try:
        return parse_status(ask(name, request, folder))  # The answer to `set` is an errno alone.
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
            except ConnectionRefusedError:
                takeover_path(name, folder).unlink(missing_ok=True)  # Its process was killed.
                raise
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


@contextmanager
def name_file(path: Path, interface: str) -> Iterator[None]:
    """Keep the name that the system has given a device's interface in a file, for the block. Raises `OSError`."""
    write_atomically(path, f"{interface}\n".encode(), 0o644)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


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


def takeover_path(name: str, folder: Path = FOLDER) -> Path:
    """Return the path of the socket by which another process takes the device `name` over. Raises `InvalidSetting`."""
    return folder / f"{check_device_name(name)}.takeover"


def _path(name: str, folder: Path) -> Path:
    check_device_name(name)
    if not hasattr(socket, "AF_UNIX"):
        text = "devices are managed by Unix sockets, which Python does not have on this system"
        raise EndpointError(errno.ENOTSUP, text)
    return folder / f"{name}.sock"
