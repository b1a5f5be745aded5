"""Finding wintun.dll, and loading it if it is the pinned release. Knows none of its functions."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from ctypes import c_int, c_uint32, c_void_p, c_wchar_p
from pathlib import Path
from typing import Any

from threepipe.errors import AdapterUnavailable, PermissionDenied
from threepipe.platforms.windows.release import DLL_NAME, RELEASE, architecture_of, process_architecture
from threepipe.platforms.windows.winerror import (
    ERROR_ACCESS_DENIED,
    ERROR_BAD_EXE_FORMAT,
    ERROR_FILE_NOT_FOUND,
    windows_error,
)

__all__ = ["VARIABLE", "find_library", "is_named", "load_library", "unload_library", "use_library", "user_folder"]

VARIABLE = "THREEPIPE_WINTUN"
"""The environment variable with the file to load, whatever its hash."""

# <winnt.h>, <fileapi.h>, <libloaderapi.h>
GENERIC_READ = 0x80000000
FILE_SHARE_READ = 0x1
OPEN_EXISTING = 3
LOAD_LIBRARY_SEARCH_SYSTEM32 = 0x800

FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "CreateFileW": (c_void_p, (c_wchar_p, c_uint32, c_uint32, c_void_p, c_uint32, c_uint32, c_void_p)),
    "CloseHandle": (c_int, (c_void_p,)),
}
"""The result and argument types of functions, by name."""

_PACKAGE = Path(__file__).absolute().parents[2]  # The folder of threepipe.

_named: Path | None = None


def use_library(path: str | os.PathLike[str] | None) -> None:
    """Make this process load the file at `path` from now on, whatever its hash; None undoes that."""
    global _named
    _named = None if path is None else Path(path).absolute()


def is_named(path: Path) -> bool:
    """Return True if the user chose this file, by `use_library` or by `THREEPIPE_WINTUN`."""
    return path == _chosen_by_user()


def find_library() -> Path:
    """Return the DLL to load: the one the user chose, else beside the program, else in the user's folder.

    Loads and checks nothing. Raises `AdapterUnavailable` if there is none.
    """
    if named := _chosen_by_user():
        if named.is_file():
            return named
        raise _missing(f"{named}, chosen by {VARIABLE} or by the program, is not a file; choose another")
    beside = [folder / DLL_NAME for folder in _program_folders()]
    folder = user_folder(process_architecture())
    for path in [*beside, folder / DLL_NAME]:
        if path.is_file():
            return path
    raise _missing(f"there is no {DLL_NAME} beside the program or in {folder}; run: threepipe driver install")


def load_library(path: Path) -> ctypes.CDLL:
    """Load the DLL at `path`, which must be the pinned release's unless the user chose the file.

    Its functions keep the last error (GetLastError). Raises `AdapterUnavailable` for a missing file, another
    architecture or other content, each with its own text, and `PermissionDenied` if this user may not read
    the file.
    """
    try:
        with _held(path) as content:
            if not is_named(path):
                RELEASE.check(content, process_architecture(), str(path))
            return _load(path, content)
    except FileNotFoundError:
        raise _missing(f"{path} is gone; run: threepipe driver install") from None
    except PermissionError as error:
        if isinstance(error, PermissionDenied):
            raise
        text = f"this user may not read {path}; allow it, or remove the file and run: threepipe driver install"
        raise windows_error(PermissionDenied, ERROR_ACCESS_DENIED, text) from None


def unload_library(library: ctypes.CDLL) -> None:
    """Unload a DLL that `load_library` returned, so that its file can be removed. Do not use the DLL afterwards."""
    import _ctypes

    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)


def user_folder(architecture: str) -> Path:
    """Return the folder in which `threepipe driver install` puts the DLL for `architecture`.

    Raises `AdapterUnavailable`.
    """
    if data := os.environ.get("LOCALAPPDATA"):
        return Path(data, "threepipe", "driver", architecture)
    raise _missing("LOCALAPPDATA, the user's data folder, is not set; set it, or name a folder with --to")


def _chosen_by_user() -> Path | None:
    if _named is not None:
        return _named
    variable = os.environ.get(VARIABLE)
    return Path(variable).absolute() if variable else None


def _program_folders() -> list[Path]:
    """Return the folders for DLLs of a program: of the executable, of the script, and of this package."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return [Path(file).absolute().parent for file in (sys.executable, main) if file] + [_PACKAGE]


@contextlib.contextmanager
def _held(path: Path) -> Iterator[bytes]:
    """Yield the content of a file; on Windows no program can write, rename or replace it until the block ends.

    Otherwise another program could replace the file between the check and the load by an administrator.
    """
    if sys.platform == "win32":
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(kernel32, name)
            function.restype, function.argtypes = result, arguments
        handle = kernel32.CreateFileW(str(path), GENERIC_READ, FILE_SHARE_READ, None, OPEN_EXISTING, 0, None)
        if handle == c_void_p(-1).value:  # INVALID_HANDLE_VALUE
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            yield path.read_bytes()
        finally:
            kernel32.CloseHandle(handle)
    else:
        yield path.read_bytes()


def _load(path: Path, content: bytes) -> ctypes.CDLL:
    try:
        if sys.platform == "win32":
            # Its own dependencies come from the system's folder only.
            return ctypes.WinDLL(str(path.absolute()), use_last_error=True, winmode=LOAD_LIBRARY_SEARCH_SYSTEM32)
        return ctypes.CDLL(str(path.absolute()), use_errno=True)
    except OSError as error:
        found = architecture_of(content)
        code = getattr(error, "winerror", None) or ERROR_BAD_EXE_FORMAT
        reason = f"it is for {found}, this Python for {process_architecture()}" if found else error.strerror or error
        text = f"{path} cannot be loaded: {reason}; to get the right one, run: threepipe driver install"
        raise windows_error(AdapterUnavailable, code, text) from None


def _missing(text: str) -> AdapterUnavailable:
    return windows_error(AdapterUnavailable, ERROR_FILE_NOT_FOUND, text)
