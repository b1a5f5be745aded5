"""Descriptors, pipes and folders on the systems that have POSIX's."""

import sys

assert sys.platform != "win32"

import fcntl
import os
import stat
from pathlib import Path

__all__ = [
    "COMMAND_ESCAPE",
    "INHERITS_DESCRIPTORS",
    "LINGER",
    "PIPES_CAN_BE_AWAITED",
    "access_mode",
    "enlarge_pipe",
    "get_blocking",
    "is_exposed",
    "is_private",
    "runtime_folder",
    "set_blocking",
    "try_lock",
    "unlock",
]

COMMAND_ESCAPE = "\\"
"""The character that quotes the next one in a command line."""
INHERITS_DESCRIPTORS = True
"""True if a program can be started with descriptors besides the standard three."""
LINGER = "ii"
"""The format of `struct linger` for `struct`: whether to linger, and for how many seconds."""
PIPES_CAN_BE_AWAITED = True
"""True if pipes can be non-blocking, and selectors and event loops can wait for them."""

_PIPE = 1 << 20  # Bytes. The usual 64 KiB cost a switch of processes for every superpacket.
_F_SETPIPE_SZ: int | None = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux only.


def access_mode(number: int) -> int:
    """Return O_RDONLY, O_WRONLY or O_RDWR, as the descriptor was opened."""
    return fcntl.fcntl(number, fcntl.F_GETFL) & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)


def get_blocking(number: int) -> bool:
    """Return True if the descriptor blocks."""
    return os.get_blocking(number)


def set_blocking(number: int, blocking: bool) -> None:
    """Make the descriptor block, or not."""
    os.set_blocking(number, blocking)


def enlarge_pipe(number: int) -> None:
    """Give the pipe behind the descriptor a larger buffer, if the system and this user's limits allow it."""
    if _F_SETPIPE_SZ is not None:
        try:
            fcntl.fcntl(number, _F_SETPIPE_SZ, _PIPE)
        except OSError:
            pass  # Not a pipe, or more than this user may have; the usual buffer works too.


def runtime_folder() -> Path | None:
    """Return the folder for the sockets of this user's programs, which may not exist yet; None if there is none."""
    for place in ("/run", "/var/run"):  # Linux, and the BSDs. False for the root user of a user namespace.
        if os.access(place, os.W_OK):
            return Path(place, "threepipe")
    home = os.environ.get("XDG_RUNTIME_DIR")
    return Path(home, "threepipe") if home else None


def is_private(folder: Path) -> bool:
    """Return True if only this user can open `folder`. Raises `OSError`."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def is_exposed(file: Path | int) -> bool:
    """Return True if every user can read or write `file`, a path or a descriptor of a regular file. Raises `OSError`.

    Judges by its mode and, for a path, that of its folder.
    """
    status = os.stat(file)
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o006:
        return False
    return isinstance(file, int) or bool(file.resolve().parent.stat().st_mode & 0o001)


def try_lock(number: int) -> bool:
    """Lock the open file, unless another opening of it has it locked: then return False. See flock(2).

    Programs that inherit the descriptor hold the lock too, until all have closed it or one calls `unlock`.
    """
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(number: int) -> None:
    """Undo `try_lock`, also for programs that have inherited the descriptor."""
    fcntl.flock(number, fcntl.LOCK_UN)
