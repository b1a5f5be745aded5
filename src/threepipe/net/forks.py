"""Forks: objects that belong to the process that made them learn in a forked child that they are left behind.

A fork copies objects, but not the threads that may hold their locks, and both processes share the files below them: an
epoll, a doorbell, a TUN device. So an object that registers here closes its copy in the child. It must wait for no
lock there, and change nothing that the parent uses. Knows no kind of object.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary

__all__ = ["call_in_child"]

Owner = TypeVar("Owner")

_calls: WeakKeyDictionary[object, Callable[[object], None]] = WeakKeyDictionary()


def call_in_child(owner: Owner, call: Callable[[Owner], None]) -> None:
    """Have `call(owner)` called in each child of `os.fork`, as long as `owner` exists."""
    _calls[owner] = call  # type: ignore[assignment]


def _call_all() -> None:
    with ExitStack() as stack:  # Calls all of them, even if one raises.
        for owner, call in list(_calls.items()):
            stack.callback(partial(call, owner))


if (_register := getattr(os, "register_at_fork", None)) is not None:
    _register(after_in_child=_call_all)
