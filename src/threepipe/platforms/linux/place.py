"""The place of an attached interface: its name, index and network namespace, which an administrator may change.

The descriptor stays attached, and packets still pass. The kernel tells its holder the present name, and the namespace
if it has CAP_NET_ADMIN there.
"""

import sys

assert sys.platform == "linux"

import errno
import io
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from threepipe.errors import AdapterGone, PermissionDenied
from threepipe.platforms.linux import tun
from threepipe.platforms.linux.namespace import Namespace
from threepipe.platforms.linux.privilege import become

__all__ = ["Place"]

Result = TypeVar("Result")

_TRIES = 5  # It may be moved between looking for it and using it.


class Place:
    """The place of the interface that `file` is attached to; after its removal, the last that is known."""

    def __init__(self, file: io.FileIO, name: str, index: int, namespace: Namespace) -> None:
        """Begin with the place that it was found in; close `namespace` in the end."""
        self.lock = threading.RLock()
        """Held while the file is used; hold it to close the file. A signal handler may close while its thread is in
        here, so that the file may be closed even then."""
        self._file = file
        self._name = name
        self._index = index
        self._namespace = namespace

    @property
    def name(self) -> str:
        """The interface's present name."""
        with self.lock:
            self._name = tun.name_of(self._file) or self._name
            return self._name

    @property
    def index(self) -> int:
        """The interface's present index; the last known one if it was moved where this process cannot follow."""
        with suppress(PermissionDenied):
            self._follow()
        return self._index

    def run(self, function: Callable[[int, str], Result]) -> Result:
        """Call `function` with index and name, inside the namespace where the interface is, as `Namespace.run` does.

        Raises `PermissionDenied` if it was moved where this process cannot follow, and `AdapterGone` if it was
        removed.
        """
        for _ in range(_TRIES):
            self._follow()
            index, name = self._index, self.name
            try:
                return self._namespace.run(partial(function, index, name))
            except AdapterGone:
                if not self._attached():
                    raise
        raise self._out_of_reach()

    def close(self) -> None:
        """Close the namespace."""
        self._namespace.close()

    def leave_behind(self) -> None:
        """Close the namespace in a forked child, where threads of the parent may seem to hold the locks."""
        self.lock = threading.RLock()
        self._namespace.leave_behind()

    def _follow(self) -> None:
        """Find the interface again if it was moved to another namespace. Raises `PermissionDenied` as `run` does."""
        with self.lock:
            if (file := tun.namespace_of(self._file)) is None:
                return
            there, name = Namespace(file), self.name
            try:
                if not self._namespace.is_same(there):
                    self._index = there.run(partial(socket.if_nametoindex, name))
                    self._namespace.become(there)
            except PermissionDenied:
                raise self._out_of_reach() from None
            except OSError:
                pass  # It has another name or place by now.
            finally:
                there.close()

    def _attached(self) -> bool:
        with self.lock:
            return tun.name_of(self._file) is not None

    def _out_of_reach(self) -> PermissionDenied:
        return PermissionDenied(
            errno.EPERM,
            f"{self.name} was moved to another network namespace, which this user may not enter; packets still pass,"
            f" but for the rest {become('CAP_SYS_ADMIN')} or move it back",
        )
