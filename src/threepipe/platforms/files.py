"""Replacing files in one step, on every system."""

import os
import tempfile
from pathlib import Path

__all__ = ["write_atomically"]


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
