"""The journal of a device: what its process has set up, written down before each deed, so that others can undo it.

The journal is a file beside the management socket, and only root can read it. Its process holds a lock as long as it
lives. When that process is dead, the next `up` or `down` of the device takes the lock and undoes the rest. This file
knows how to keep a journal; `undo` knows the kinds of deeds.

A journal has a JSON object on each line: `scope`, the network that the device was in; `undo` and the arguments, what
undoes the deed that follows; `done`, the number of the line that is undone; `failed`, a text for the user.
"""

import errno
import json
import os
import stat
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from threepipe import platforms
from threepipe.errors import EndpointError, ThreepipeError

__all__ = ["Action", "Journal"]

_SECONDS_FOR_PROGRAMS = 20.0
_POLL = 0.02  # Seconds.


@dataclass(frozen=True, slots=True)
class Action:
    """The undoing of one kind of deed."""

    title: str
    """The name of the thing that is undone, for the user."""
    undo: Callable[..., None]
    """Called with a `Hold` and the arguments of the line, perhaps again, or before the deed was done.

    Raises `ThreepipeError` or `OSError`.
    """
    everywhere: bool = True
    """False if this must be done in the device's own network namespace."""
    again: bool = True
    """False if it is given up when it fails."""


class Journal:
    """The journal of the device `name`, locked. Closing it removes its files, if everything is undone."""

    def __init__(self, name: str, folder: Path, actions: Mapping[str, Action], seconds: float = 0.0) -> None:
        """Lock the journal, and create it if it is missing.

        Waits up to `seconds` for the process of the device to end, and a while for programs that it started: they may
        still be at work after it was killed. Raises `EndpointError`.
        """
        self._name, self._actions = name, actions
        self._path, self._lock_path = folder / f"{name}.journal", folder / f"{name}.lock"
        self.failures: list[str] = []
        """Sentences for the user, one for each undoing that failed or met an error."""
        self._given_up: list[str] = []
        self.given = False
        """True if the deeds are another process's to undo, so that this one undoes nothing, and leaves the files."""
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._lock = _lock(self._lock_path, seconds, name)
        try:
            self._file = _open(self._path)
        except BaseException:
            os.close(self._lock)
            raise
        try:
            self._wait_for_programs()
            self._lines = self._read()
        except BaseException:
            self._close_files()
            raise

    @classmethod
    def adopted(cls, name: str, folder: Path, actions: Mapping[str, Action], descriptors: Sequence[int]) -> Self:
        """Return the journal of another process, which shares its `descriptors`; it is `given` at first.

        Owns the descriptors. Raises `EndpointError`.
        """
        journal = cls.__new__(cls)
        journal._name, journal._actions = name, actions
        journal._path, journal._lock_path = folder / f"{name}.journal", folder / f"{name}.lock"
        journal.failures, journal._given_up = [], []
        journal._file, journal._lock = descriptors
        journal.given = True
        try:
            journal._lines = journal._read()
        except BaseException:
            journal._close_files()
            raise
        return journal

    @property
    def descriptors(self) -> list[int]:
        """The descriptors of the file and the lock, for `adopted` in another process, which holds the lock as well."""
        return [self._file, self._lock]

    @contextmanager
    def adopted_until_end(self, kinds: Container[str]) -> Iterator[None]:
        """Undo the deeds of these kinds that an adopted journal has, the last one first, at the block's end."""
        numbers = [number for number in self._pending() if self._lines[number]["undo"] in kinds]
        try:
            yield
        finally:
            for number in reversed(numbers):
                self._undo(number)

    @staticmethod
    def exists(name: str, folder: Path) -> bool:
        """Return True if a process keeps a journal of the device, or has left one."""
        return (folder / f"{name}.journal").exists()

    @contextmanager
    def hold(self) -> Iterator[tuple[int, ...]]:
        """Give programs a descriptor that is locked until they end, even if this process is killed before."""
        platforms.try_lock(self._file)
        try:
            yield (self._file,)
        finally:
            platforms.unlock(self._file)  # Also for programs that they leave in the background.

    @property
    def unfinished(self) -> list[str]:
        """The titles of the deeds that are not undone."""
        return [self._actions[self._lines[number]["undo"]].title for number in self._pending()]

    def close(self) -> None:
        """Release the lock. Keep the file if it has something for the next process, else remove it."""
        if self._file < 0:
            return
        if not self.given and not self._pending() and not any("failed" in line for line in self._lines):
            self._path.unlink(missing_ok=True)
        self._close_files()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recover(self) -> tuple[list[str], list[str]]:
        """Undo the deeds of a dead process. Return the titles of those undone, and texts about failures, then or now.

        What failed now stays in the journal if it is worth another try.
        """
        undone = []
        told = [line["failed"] for line in self._lines if "failed" in line]
        scope = next((line["scope"] for line in self._lines if "scope" in line), "")
        for number in reversed(self._pending()):
            action = self._actions[self._lines[number]["undo"]]
            if not action.everywhere and scope != platforms.network_scope():
                told.append(f"{action.title}: left in another network namespace, if that still exists")
                self._append({"done": number})
            elif self._undo(number):
                undone.append(action.title)
        told += self.failures
        self.failures, self._given_up = [], []
        if not self._pending():
            os.ftruncate(self._file, 0)
            self._lines = []
        return undone, told

    @contextmanager
    def until_end(self, kind: str, **arguments: Any) -> Iterator[None]:
        """Write down how to undo the deed that the block does first, and undo it at the block's end.

        What fails then is added to `failures`, and raises nothing. Raises `OSError` if the journal cannot be written.
        """
        if not self._lines:
            self._append({"scope": platforms.network_scope()})
        number = len(self._lines)
        self._append({"undo": kind, **arguments})
        try:
            yield
        finally:
            self._undo(number)

    def leave_failures(self) -> None:
        """Leave the failures that are not tried again for the next `up` or `down` to tell. Raises `OSError`."""
        for failure in self._given_up:
            self._append({"failed": failure})

    def _undo(self, number: int) -> bool:
        """Carry out a line. Return True if it succeeded."""
        if self.given:
            return True
        arguments = dict(self._lines[number])
        action = self._actions[arguments.pop("undo")]
        failure = None
        try:
            action.undo(self.hold, **arguments)
        except (ThreepipeError, OSError) as error:
            failure = f"{action.title}: {error}"
        try:
            if failure is None or not action.again:
                self._append({"done": number})
        except OSError as error:  # The next process undoes it again.
            failure = f"{self._path}: {error.strerror}"
        if failure is not None:
            self.failures.append(failure)
            if action.again is False:
                self._given_up.append(failure)
        return failure is None

    def _pending(self) -> list[int]:
        done = {line["done"] for line in self._lines if "done" in line}
        return [number for number, line in enumerate(self._lines) if "undo" in line and number not in done]

    def _append(self, line: dict[str, Any]) -> None:
        size = os.fstat(self._file).st_size
        text = json.dumps(line).encode() + b"\n"
        if os.write(self._file, text) < len(text):
            os.ftruncate(self._file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._lines.append(line)

    def _read(self) -> list[dict[str, Any]]:
        """Return the lines. A last one that was not written to its end is dropped: its deed had not begun."""
        content = self._path.read_bytes()
        whole = content.rpartition(b"\n")[0]
        os.ftruncate(self._file, len(whole) + 1 if whole else 0)
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            known = all(isinstance(line, dict) and line.get("undo") in {None, *self._actions} for line in lines)
        except ValueError:
            known = False
        if not known:
            text = f"{self._path} is damaged or from another version; undo its entries by hand, and remove it"
            raise EndpointError(errno.EINVAL, text)
        return lines

    def _wait_for_programs(self) -> None:
        deadline = time.monotonic() + _SECONDS_FOR_PROGRAMS
        while not platforms.try_lock(self._file):
            if time.monotonic() > deadline:
                text = f"{self._name} was killed, and programs that it started still run; fuser {self._path} shows them"
                raise EndpointError(errno.EBUSY, text)
            time.sleep(_POLL)
        platforms.unlock(self._file)

    def _close_files(self) -> None:
        os.close(self._file)
        if not self.given:
            self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)
        self._file = self._lock = -1


def _lock(path: Path, seconds: float, name: str) -> int:
    """Return the open and locked file at `path`, which is created if it is missing. Raises `EndpointError`."""
    deadline = time.monotonic() + seconds
    while True:
        file = _open(path)
        try:
            if platforms.try_lock(file):
                if path.exists() and os.path.samestat(os.stat(path), os.fstat(file)):
                    return file
            elif time.monotonic() >= deadline:
                waited = f"still running after {seconds:.0f} s" if seconds else "running"
                text = f"a device of that name is {waited}; take it down with: threepipe wg down {name}"
                raise EndpointError(errno.EBUSY, text)
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # The file was removed, or its process is alive.
        if seconds:
            time.sleep(_POLL)


def _open(path: Path) -> int:
    """Open a file for this user only. Raises `EndpointError` if another user made it, as commands in it are run."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o600)
    status = os.fstat(file)
    if status.st_uid != getattr(os, "geteuid", lambda: status.st_uid)() or status.st_mode & stat.S_IWOTH:
        os.close(file)
        raise EndpointError(errno.EPERM, f"{path} belongs to another user; ask that user, or root, to remove it")
    return file
