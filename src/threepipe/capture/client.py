"""The client for running pipes: it lists them, asks for their counts and captures their packets.

Each pipe listens on a Unix socket in a folder that only its user can open. It introduces itself with one line of
JSON. To the line `status` it answers with another one, and to the line `capture` with pcapng, until the client or the
pipe ends. `server` is the other side.
"""

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from threepipe.backend import CapturedBundle
from threepipe.capture.reader import CaptureReader
from threepipe.capture.status import PipeStatus, parse
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.net.connect import connect_unix
from threepipe.platforms import is_private, runtime_folder

__all__ = [
    "PREFIX",
    "REQUEST",
    "STATUS_REQUEST",
    "SUFFIX",
    "TAKEOVER_SUFFIX",
    "PipeSource",
    "RunningPipe",
    "running_pipes",
    "status_of_pipe",
]

PREFIX = "pipe:"
"""The start of every running pipe's name. The kernel allows no colon in the names of adapters."""

REQUEST = b"capture\n"
STATUS_REQUEST = b"status\n"
SUFFIX = ".sock"
TAKEOVER_SUFFIX = ".takeover"
"""The end of the name of a second socket, at which the pipe is handed over to another process."""

_GREETING_TIMEOUT = 2.0  # Seconds.
_MAX_GREETING = 1 << 16  # Bytes.
_CHUNK = 1 << 18  # Bytes to receive at a time.


class RunningPipe(NamedTuple):
    """A pipe that runs now, by the text of its addresses, in which characters that cannot be printed are escaped."""

    pid: int
    left: str
    right: str
    path: Path

    @property
    def name(self) -> str:
        """`pipe:PID`; further pipes of one process are `pipe:PID-2` and so on."""
        return PREFIX + self.path.stem


def running_pipes(folder: Path | None = None) -> list[RunningPipe]:
    """Return the pipes of this user that can be captured. Removes the sockets of killed ones."""
    folder = folder or runtime_folder()
    try:
        paths = sorted(folder.glob(f"*{SUFFIX}")) if folder is not None and is_private(folder) else []
    except OSError:
        return []  # The folder does not exist yet, or belongs to another user.
    found = []
    for path in paths:
        try:
            connection, pipe = _connect(path)
        except EndpointError as error:
            if error.errno == errno.ECONNREFUSED and path.is_socket() and not _process_exists(path):
                for leftover in (path, path.with_suffix(TAKEOVER_SUFFIX)):
                    leftover.unlink(missing_ok=True)
            continue
        connection.close()
        found.append(pipe)
    return found


def status_of_pipe(pipe: RunningPipe) -> PipeStatus | None:
    """Return the counts of a running pipe. None: it has just ended, or its threepipe is too old to tell."""
    try:
        connection, _ = _connect(pipe.path)
        with connection:
            connection.sendall(STATUS_REQUEST)
            return parse(_read_line(connection))
    except (EndpointError, OSError, ValueError):
        return None


def _process_exists(path: Path) -> bool:
    try:
        os.kill(int(path.stem.partition("-")[0]), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, OSError):
        pass  # Another user's process, or a file that is not ours: leave it.
    return True


def _connect(path: Path) -> tuple[socket.socket, RunningPipe]:
    """Connect to the pipe at `path` and read its greeting. Raises `EndpointError`."""
    connection = connect_unix(str(path))
    try:
        greeting = _read_greeting(connection)
    except (OSError, ValueError):
        connection.close()
        raise EndpointError(errno.EPROTO, f"{path} is not the socket of a running pipe") from None
    except BaseException:
        connection.close()
        raise
    return connection, RunningPipe(*greeting, path)


def _read_greeting(connection: socket.socket) -> tuple[int, str, str]:
    """Return the pipe's process id and the texts of its addresses. Raises `OSError` and `ValueError`.

    Any program may listen there, so nothing that it sends is believed: not its length, its pace or its types.
    """
    line = _read_line(connection)
    try:
        greeting = json.loads(line)
    except RecursionError:
        raise ValueError from None
    if not isinstance(greeting, dict):
        raise ValueError
    pid, left, right = (greeting.get(name) for name in ("pid", "left", "right"))
    if type(pid) is not int or not isinstance(left, str) or not isinstance(right, str):
        raise ValueError
    return pid, _printable(left), _printable(right)


def _read_line(connection: socket.socket) -> bytes:
    """Return a line, within a limit of time and length. Raises `OSError` and `ValueError`."""
    deadline = time.monotonic() + _GREETING_TIMEOUT
    line = b""
    while not line.endswith(b"\n"):
        if (remaining := deadline - time.monotonic()) <= 0 or len(line) == _MAX_GREETING:
            raise ValueError
        connection.settimeout(remaining)
        # One byte at a time is enough: the pipe sends few lines until it gets a request.
        if not (data := connection.recv(1)):
            raise ValueError
        line += data
    return line


def _printable(text: str) -> str:
    return "".join([char if char.isprintable() else char.encode("unicode_escape").decode() for char in text])


class PipeSource:
    """The packets of a running pipe from now on; a `threepipe.backend.Source`."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """Connect to the pipe `name`, as in `RunningPipe.name`. Raises `EndpointError` and `InvalidSetting`."""
        stem = name.removeprefix(PREFIX)
        if not stem.replace("-", "").isdecimal():
            raise InvalidSetting(f"{name!r} does not name a running pipe; give {PREFIX}PID, with its process id")
        folder = folder or runtime_folder()
        if folder is None:
            raise EndpointError(errno.ENOSYS, "this system has no folder for running pipes, so none can be captured")
        try:
            self._socket, pipe = _connect(folder / f"{stem}{SUFFIX}")
        except EndpointError as error:
            if error.errno not in (errno.ENOENT, errno.ECONNREFUSED):
                raise
            raise EndpointError(
                error.errno,
                f"process {stem} runs no pipe of this user; threepipe ps lists the pipes",
            ) from None
        self.name = f"{pipe.left} {pipe.right}"
        self._reader: CaptureReader | None = None

    @property
    def dropped(self) -> int:
        """Packets that this client was too slow for, by the pipe's count."""
        return self._reader.dropped if self._reader is not None else 0

    def __iter__(self) -> Iterator[list[CapturedBundle]]:
        """Yield packets as they pass, until the pipe ends or `stop` is called."""
        incoming = _SocketFile(self._socket)
        try:
            self._socket.settimeout(None)
            self._socket.sendall(REQUEST)
            self._reader = reader = CaptureReader(incoming, self.name)
        except (OSError, EndpointError):
            return  # The pipe ended, or `stop` was called, before the capture began.
        bundles: list[CapturedBundle] = []
        for time_ns, packet, direction in reader:
            bundles.append(CapturedBundle(direction, (packet,), time_ns))
            if not incoming.unread:
                yield bundles
                bundles = []
        if bundles:
            yield bundles

    def stop(self) -> None:
        """Ask the pipe to send the packets seen so far and to end the capture."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The pipe has disconnected already.

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()


class _SocketFile:
    """A socket that is read like a file. Unlike `socket.makefile`, it shows how much it has buffered."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._data = b""
        self._start = 0

    @property
    def unread(self) -> int:
        """Bytes received and not read yet."""
        return len(self._data) - self._start

    def read(self, size: int, /) -> bytes:
        while self.unread < size:
            try:
                if not (more := self._socket.recv(_CHUNK)):
                    break
            except ConnectionError:
                break
            self._data, self._start = self._data[self._start :] + more, 0
        data = self._data[self._start : self._start + size]
        self._start += len(data)
        return data
