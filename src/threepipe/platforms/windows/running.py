"""Wintun's driver in Windows: its running version, and removing it.

Every call loads the DLL and unloads it again, so that its file can be replaced afterwards.
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
    """Return the version of the driver that Windows has loaded, or None (WintunGetRunningDriverVersion).

    Windows loads it for the first adapter. Raises as `load_library` does.
    """
    name = "WintunGetRunningDriverVersion"
    with _loaded() as library:
        # Without a `Wintun`, which would take over the log of an adapter in this process.
        if not hasattr(library, name):
            text = f"{library._name} is not Wintun, as it lacks {name}; run: threepipe driver install"
            raise windows_error(AdapterUnavailable, ERROR_PROC_NOT_FOUND, text)
        function = library[name]
        function.restype, function.argtypes = FUNCTIONS[name]
        version = function()
    return f"{version >> 16}.{version & 0xFFFF}" if version else None


def delete_driver() -> None:
    """Remove the driver from Windows (WintunDeleteDriver).

    Raises `PermissionDenied` without administrator rights, `AdapterBusy` while any adapter exists, and as
    `load_library` does.
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
