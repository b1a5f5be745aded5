"""A cache folder of parts, each complete or absent. Knows nothing of the parts' content."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ["Cache", "NotAvailable", "SetupFailed", "run"]


class SetupFailed(Exception):
    """A step of the setup failed; the text says which, and how."""


class NotAvailable(SetupFailed):
    """This machine lacks something and cannot get it, as without a network; the text says what."""


class Cache:
    """The cache in ~/.cache/threepipe/windows, or in the folder that THREEPIPE_WINDOWS_CACHE names."""

    def __init__(self) -> None:
        default = Path.home() / ".cache" / "threepipe" / "windows"
        self.folder = Path(os.environ.get("THREEPIPE_WINDOWS_CACHE") or default).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock: one process sets up while others wait."""
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def part(self, name: str, recipe: str, make: Callable[[Path], None]) -> Path:
        """Return the folder of a part, which `make` fills if it does not exist.

        Another `recipe` makes another folder, so a run that still uses an old one is not disturbed. `make` fills a
        folder of another name, which is emptied first, as an interrupted run may have left files.
        """
        folder = self.folder / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
        if folder.exists():
            return folder
        print(f"Windows' Python: {name} ...", flush=True)
        unfinished = self.folder / f"{folder.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        make(unfinished)
        unfinished.rename(folder)
        return folder


def run(command: Sequence[str | Path], doing: str, unavailable: str = "", **environment: str) -> str:
    """Run a program to its end and return its output. Raises `SetupFailed` with its last lines if it fails.

    Raises `NotAvailable` if the output matches the regular expression `unavailable`: the network did not provide a
    file that the program needs.
    """
    try:
        done = subprocess.run(
            list(map(str, command)),
            env=os.environ | environment,
            input="",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=900,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupFailed(f"{doing} failed: {error}") from None
    if done.returncode:
        kind = NotAvailable if unavailable and re.search(unavailable, done.stdout) else SetupFailed
        raise kind(f"{doing} failed: {' / '.join(done.stdout.split(chr(10))[-4:]).strip()}")
    return done.stdout
