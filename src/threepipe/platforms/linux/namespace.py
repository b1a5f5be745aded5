"""Network namespaces: finding one, and running control code inside it. Knows nothing of adapters.

A thread is in one network namespace at a time, so each call runs in a new thread and the calling thread never moves.
That holds without a namespace too, as pyroute2 cannot run in a thread that runs an asyncio loop.
"""

import sys

assert sys.platform == "linux"

import ctypes
import errno
import fcntl
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from threepipe.errors import AdapterClosed, AdapterError, InvalidSetting, NamespaceNotFound, PermissionDenied
from threepipe.platforms.linux.privilege import become
from threepipe.settings import NamespaceName

__all__ = [
    "CLONE_NEWUSER",
    "Namespace",
    "enter_user_namespace",
    "namespace_names",
    "opening",
    "private_networks",
    "unshare",
]

Result = TypeVar("Result")

_RUN = Path("/run/netns")  # The folder of the names of ip-netns(8).

# <linux/sched.h>
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

_SECONDS_FOR_TURN = 2.0

_libc = ctypes.CDLL(None, use_errno=True)  # Python's os module has both calls since 3.12.


def namespace_names() -> list[str]:
    """Return the names that ip-netns(8) has given."""
    try:
        return sorted(os.listdir(_RUN))
    except OSError:
        return []  # The folder is made with the first of them.


class Namespace:
    """A network namespace, kept alive while this object is open; without a descriptor, the caller's."""

    def __init__(self, file: io.FileIO | None) -> None:
        self._file = file
        self._lock = threading.RLock()  # Guards closing; a signal handler may close while its thread is in here.
        self._closed = False

    @classmethod
    def find(cls, netns: NamespaceName | None) -> "Namespace":
        """Open a namespace by a name below /run/netns, a path (with a slash) or a process id (int or digits).

        None means the caller's. Raises `NamespaceNotFound` or `PermissionDenied`.
        """
        if netns is None:
            return cls(None)
        path = _path(netns)
        try:
            return cls(io.FileIO(path, opener=_open_at_once))
        except PermissionError as error:
            advice = become("CAP_SYS_PTRACE")
            raise PermissionDenied(error.errno, f"this user may not enter the namespace {path}; {advice}") from None
        except OSError as error:
            raise NamespaceNotFound(
                error.errno, f"no network namespace {netns}: {path} cannot be opened; ip netns lists the names"
            ) from None

    @classmethod
    def fresh(cls) -> "Namespace":
        """Create a namespace without a name, which lives until its last holder and its last process are gone."""

        def enter_new() -> io.FileIO:
            unshare(CLONE_NEWNET)
            return io.FileIO("/proc/thread-self/ns/net")

        return cls(_in_thread(enter_new))

    def run(self, function: Callable[[], Result]) -> Result:
        """Call `function` inside the namespace, in a new thread, and return or raise its outcome.

        Another thread may close this object meanwhile. Raises `AdapterClosed` if that has happened before.
        """
        with self._lock:
            if self._closed:
                raise AdapterClosed("this network namespace was closed; open it again")
            # The call has a descriptor of its own, as the number of a closed one may name another file soon.
            file = None if self._file is None else io.FileIO(os.dup(self._file.fileno()))
            name = "" if self._file is None else self._file.name

        def inside() -> Result:
            if file is not None:
                with file:
                    _enter(file, str(name))
            return function()

        try:
            return _in_thread(inside)
        finally:
            if file is not None:
                file.close()  # If there was no thread to do so.

    def is_same(self, other: "Namespace") -> bool:
        """Return True if `other` is the same namespace, or if there is no /proc to tell."""
        with self._lock, other._lock:
            try:
                return os.path.samestat(self._stat(), other._stat())
            except (OSError, ValueError):
                return True  # One of them may be closed already.

    def _stat(self) -> os.stat_result:
        return os.stat("/proc/thread-self/ns/net" if self._file is None else self._file.fileno())

    def become(self, other: "Namespace") -> None:
        """Change to the namespace `other`, which must have a descriptor, in the calls to come."""
        assert other._file is not None
        with self._lock:
            if not self._closed:
                if self._file is not None:
                    self._file.close()
                self._file = io.FileIO(os.dup(other._file.fileno()))

    @property
    def path(self) -> str:
        """A path by which other processes of this user can open it, while this object is open."""
        return f"/proc/{os.getpid()}/" + ("ns/net" if self._file is None else f"fd/{self._file.fileno()}")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()

    def leave_behind(self) -> None:
        """Close it in a forked child, where a thread of the parent may seem to hold the lock."""
        self._lock = threading.RLock()
        self.close()


def _enter(file: io.FileIO, name: str) -> None:
    """Move this thread into the namespace. Raises `NamespaceNotFound` or `PermissionDenied`."""
    if _libc.setns(file.fileno(), CLONE_NEWNET):
        if ctypes.get_errno() == errno.EINVAL:
            raise NamespaceNotFound(errno.EINVAL, f"{name} is not a network namespace")
        raise _refused("setns")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # Opening a FIFO would wait for a writer.


def _path(netns: NamespaceName) -> Path:
    if isinstance(netns, int):
        return Path(f"/proc/{netns}/ns/net")
    text = os.fspath(netns)
    if text in ("", ".", "..") or "\0" in text:
        raise InvalidSetting(f"no network namespace can be named {text!r}; ip netns lists the names")
    if "/" in text or isinstance(netns, os.PathLike):
        return Path(text)
    named = _RUN / text
    return Path(f"/proc/{text}/ns/net") if text.isdecimal() and not named.exists() else named


@contextmanager
def opening() -> Iterator[None]:
    """Keep other programs out of such a block in this thread's network namespace.

    The lock is flock(2) on the namespace's own file: every user can take it, it differs between namespaces, and the
    kernel releases it when its holder dies. As every user can also keep it, this waits two seconds for its turn and
    then goes on: the lock only orders openers of adapters and changes of routing rules, which must hold without it.
    """
    try:
        file = io.FileIO("/proc/thread-self/ns/net")
    except OSError:
        yield  # There is no /proc here.
        return
    with file:
        deadline = time.monotonic() + _SECONDS_FOR_TURN
        while not _locked(file) and time.monotonic() < deadline:
            time.sleep(0.002)
        yield


def _locked(file: io.FileIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # This system cannot lock such a file, so nobody holds the lock.
    return True


def _in_thread(function: Callable[[], Result]) -> Result:
    with ThreadPoolExecutor(1, "threepipe-control") as executor:
        return executor.submit(function).result()


def unshare(namespaces: int) -> None:
    """Move this thread into new namespaces of the kinds in `namespaces` (CLONE_NEW... flags).

    Raises `PermissionDenied`.
    """
    if _libc.unshare(namespaces):
        raise _refused("unshare")


def _refused(call: str) -> AdapterError:
    code = ctypes.get_errno()
    if code == errno.EPERM:
        return PermissionDenied(code, f"{call} of a namespace needs CAP_SYS_ADMIN; {become('CAP_SYS_ADMIN')}")
    return AdapterError(code, f"{call} of a namespace: {os.strerror(code)}")


def private_networks() -> tuple[str, tuple[Namespace, Namespace]]:
    """Create two namespaces for a demonstration, and return what allowed it: "root" or "user namespace".

    The process of an ordinary user moves into a user namespace, for which it must have one thread. Raises
    `PermissionDenied` if neither is allowed.
    """
    privilege = "root"
    if os.geteuid():
        enter_user_namespace()
        privilege = "user namespace"
    first = Namespace.fresh()
    try:
        return privilege, (first, Namespace.fresh())
    except BaseException:
        first.close()
        raise


def enter_user_namespace() -> None:
    """Make this process root of a new user namespace, so that it may create network namespaces.

    The process must have one thread. Raises `PermissionDenied` if the system forbids it.
    """
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise PermissionDenied(
            error.errno, f"this system forbids root in a user namespace; {become('CAP_SYS_ADMIN')}"
        ) from None
