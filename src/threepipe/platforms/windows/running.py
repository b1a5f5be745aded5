"""Wintun's driver as Windows runs it: which version, and having Windows forget it.

Loads the DLL for each question and lets go of it, so that its file can be replaced afterwards.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from threepipe.errors import AdapterUnavailable
from threepipe.platforms.windows.library import find_library, load_library, unload_library
from threepipe.platforms.windows.winerror import ERROR_PROC_NOT_FOUND, windows_error
from threepipe.platforms.windows.wintun import FUNCTIONS, Wintun

__all__ = ["delete_driver", "running_version"]


def running_version() -> str | None:
    """The version of the driver that Windows has loaded, or None (WintunGetRunningDriverVersion).

    Windows loads it with the first adapter. Raises as `load_library` does.
    """
    name = "WintunGetRunningDriverVersion"
    with _loaded() as library:
        # Without the binding, which would take the log from the one that an adapter of this process has.
        if not hasattr(library, name):
            text = f"{library._name} is no library of Wintun, for it lacks {name}; threepipe driver install gets one"
            raise windows_error(AdapterUnavailable, ERROR_PROC_NOT_FOUND, text)
        function = library[name]
        function.restype, function.argtypes = FUNCTIONS[name]
        version = function()
    return f"{version >> 16}.{version & 0xFFFF}" if version else None


def delete_driver() -> None:
    """Take the driver out of Windows (WintunDeleteDriver).

    Raises `PermissionDenied` for who is no administrator, `AdapterError` while an adapter is there,
    and as `load_library` does.
    """
    with _loaded() as library:
        wintun = Wintun(library)
        try:
            wintun.delete_driver()
        finally:
            wintun.silence()


@contextmanager
def _loaded() -> Iterator[ctypes.CDLL]:
    library = load_library(find_library())
    try:
        yield library
    finally:
        unload_library(library)
