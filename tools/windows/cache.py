"""The folder that keeps what is made once: each part whole or not there at all. Knows not what the parts are."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ["Cache", "CannotSetUp", "NotToBeHad", "run"]


class CannotSetUp(Exception):
    """A step failed that should not have; the text says which, and how."""


class NotToBeHad(CannotSetUp):
    """This machine lacks something and nobody gives it to it, as without a network; the text says what."""


class Cache:
    """By default ~/.cache/threepipe/windows; THREEPIPE_WINDOWS_CACHE names another folder."""

    def __init__(self) -> None:
        default = Path.home() / ".cache" / "threepipe" / "windows"
        self.folder = Path(os.environ.get("THREEPIPE_WINDOWS_CACHE") or default).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time sets up; the others wait for it."""
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def part(self, name: str, recipe: str, make: Callable[[Path], None]) -> Path:
        """The folder of `name` that `make` has filled by `recipe`; another recipe makes another folder.

        So a run that still uses an older one is left in peace. What an interrupted run has begun lies beside it
        under another name, and is begun again.
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


def run(command: Sequence[str | Path], doing: str, unanswered: str = "", **environment: str) -> str:
    """Run a program to its end and return what it printed; `CannotSetUp` with its last lines where it fails.

    Where it printed what the regular expression `unanswered` matches, nobody gave it what it asked the network for:
    `NotToBeHad`.
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
        raise CannotSetUp(f"{doing} failed: {error}") from None
    if done.returncode:
        kind = NotToBeHad if unanswered and re.search(unanswered, done.stdout) else CannotSetUp
        raise kind(f"{doing} failed: {' / '.join(done.stdout.split(chr(10))[-4:]).strip()}")
    return done.stdout
