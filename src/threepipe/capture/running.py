"""Running pipes, as they are found from outside: a Unix socket for each, in a folder of this user's own.

Who may open the folder may capture, and nobody else. A pipe says at once who it is, in a line of JSON, and
answers the line `capture` with pcapng, until one of the two ends.
"""

import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from threepipe.backend import Seen
from threepipe.capture.reading import CaptureReader
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.net.connect import connect_unix
from threepipe.platforms import is_private, runtime_folder

__all__ = ["ORDER", "PREFIX", "PipeSource", "RunningPipe", "running"]

PREFIX = "pipe:"
"""What names of running pipes begin with, where adapters have names too: the kernel allows no colon in those."""

ORDER = b"capture\n"
SUFFIX = ".sock"

_PATIENCE = 2.0  # Seconds in which a pipe says who it is.
_LONGEST_LINE = 1 << 16
_PIECE = 1 << 18  # Bytes that are read at a time.


class RunningPipe(NamedTuple):
    pid: int
    left: str
    right: str
    path: Path

    @property
    def name(self) -> str:
        """`pipe:PID`; a program that runs several has `pipe:PID-2` and so on."""
        return PREFIX + self.path.stem


def running(folder: Path | None = None) -> list[RunningPipe]:
    """The pipes of this user that can be captured. Removes what killed ones left behind."""
    folder = folder or runtime_folder()
    try:
        paths = sorted(folder.glob(f"*{SUFFIX}")) if folder is not None and is_private(folder) else []
    except OSError:
        return []  # There were none yet, or they are somebody else's.
    found = []
    for path in paths:
        try:
            connected, pipe = _meet(path)
        except EndpointError as error:
            if error.errno == errno.ECONNREFUSED and path.is_socket() and not _is_alive(path):
                path.unlink(missing_ok=True)
            continue
        connected.close()
        found.append(pipe)
    return found


def _is_alive(path: Path) -> bool:
    try:
        os.kill(int(path.stem.partition("-")[0]), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):
        pass  # Somebody else's, and none of our business.
    return True


def _meet(path: Path) -> tuple[socket.socket, RunningPipe]:
    """A connection to the pipe, and what it says of itself. Raises `EndpointError`."""
    connected = connect_unix(str(path))
    try:
        connected.settimeout(_PATIENCE)
        line = b""
        while not line.endswith(b"\n"):
            # Byte by byte, for nothing comes behind it until it is asked for.
            if not (data := connected.recv(1)) or len(line) == _LONGEST_LINE:
                raise ValueError
            line += data
        said = json.loads(line)
        return connected, RunningPipe(int(said["pid"]), str(said["left"]), str(said["right"]), path)
    except (OSError, ValueError, KeyError, TypeError):
        connected.close()
        raise EndpointError(errno.EPROTO, f"{path} is no socket of a running pipe") from None
    except BaseException:
        connected.close()
        raise


class PipeSource:
    """What goes through a running pipe from now on."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """`name`: as `RunningPipe` has it. Raises `EndpointError`, `InvalidSetting`."""
        stem = name.removeprefix(PREFIX)
        if not stem.replace("-", "").isdecimal():
            raise InvalidSetting(f"{name!r} is no running pipe; they are named {PREFIX}PID, by the process they run in")
        folder = folder or runtime_folder()
        if folder is None:
            raise EndpointError(errno.ENOSYS, "this system has no place where running pipes could be found")
        try:
            self._socket, pipe = _meet(folder / f"{stem}{SUFFIX}")
        except EndpointError as error:
            if error.errno not in (errno.ENOENT, errno.ECONNREFUSED):
                raise
            raise EndpointError(error.errno, f"no pipe of this user runs in process {stem}") from None
        self.name = f"{pipe.left} {pipe.right}"
        self._reader: CaptureReader | None = None

    @property
    def dropped(self) -> int:
        return self._reader.dropped if self._reader is not None else 0

    def __iter__(self) -> Iterator[list[Seen]]:
        incoming = _Incoming(self._socket)
        try:
            self._socket.settimeout(None)
            self._socket.sendall(ORDER)
            self._reader = reader = CaptureReader(incoming, self.name)
        except (OSError, EndpointError):
            return  # It ended, or we were stopped, before anything was seen.
        seen: list[Seen] = []
        for time_ns, packet, direction in reader:
            seen.append(Seen(direction, (packet,), time_ns))
            if not incoming.waiting:
                yield seen
                seen = []
        if seen:
            yield seen

    def stop(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)  # The pipe answers with what still waits for us, and ends it.
        except OSError:
            pass  # The other end was quicker.

    def close(self) -> None:
        self._socket.close()


class _Incoming:
    """What comes by a socket, to be read as a file."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._data = b""
        self._at = 0

    @property
    def waiting(self) -> int:
        """Bytes that came and were not read yet."""
        return len(self._data) - self._at

    def read(self, size: int, /) -> bytes:
        while self.waiting < size:
            try:
                if not (more := self._socket.recv(_PIECE)):
                    break
            except ConnectionError:
                break
            self._data, self._at = self._data[self._at :] + more, 0
        data = self._data[self._at : self._at + size]
        self._at += len(data)
        return data
