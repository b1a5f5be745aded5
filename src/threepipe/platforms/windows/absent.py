"""What other systems have beside adapters and Windows has not, each with what to do instead."""

import errno
from typing import NoReturn

from threepipe.backend import Port
from threepipe.errors import AdapterUnavailable
from threepipe.settings import Namespace

__all__ = ["open_capture", "open_inherited", "private_networks"]


def open_capture(name: str, netns: Namespace | None) -> NoReturn:
    raise AdapterUnavailable(errno.ENOSYS, "threepipe captures no adapters on Windows; pipes have --capture")


def open_inherited(number: int) -> Port | None:
    return None  # Adapters have no descriptors here.


def private_networks() -> NoReturn:
    raise AdapterUnavailable(errno.ENOSYS, "Windows has no network namespaces; MemoryAdapter pairs need none")
