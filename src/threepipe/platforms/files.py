"""Replacing and creating files in one step, on every system."""

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from threepipe.errors import EndpointError

__all__ = ["write_atomically", "write_new"]


def write_atomically(path: Path, content: bytes, mode: int) -> None:
    """Replace the file at `path`, or create it, in one step; `mode` is its permissions.

    Other programs see either the whole old file or the whole new one. Raises `OSError`.
    """
    # A temporary file is readable by its creator only, so `content` is not exposed before it has its mode.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            file.close()  # Windows replaces only closed files.
            os.chmod(file.name, mode)
            os.replace(file.name, path)
        except BaseException:
            file.close()
            os.unlink(file.name)
            raise


def write_new(files: Mapping[Path, bytes]) -> None:
    """Create files that only their owner can read and write, all or none. None may exist, not even as a link.

    Raises `EndpointError`, which names the file.
    """
    made: list[Path] = []
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        for path, content in files.items():
            with open(os.open(path, flags, 0o600), "wb") as file:
                made.append(path)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            advice = "; it is never overwritten: choose another name, or move it" if error.errno == errno.EEXIST else ""
            raise EndpointError(error.errno, f"{path}: {error.strerror}{advice}") from None
        raise
