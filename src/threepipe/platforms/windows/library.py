"""Finding wintun.dll, and loading it when it is the one it should be. Knows none of its functions."""

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
"""Of the environment: the file to load, whatever its hash."""

# <winnt.h>, <fileapi.h>, <libloaderapi.h>
GENERIC_READ = 0x80000000
FILE_SHARE_READ = 0x1
OPEN_EXISTING = 3
LOAD_LIBRARY_SEARCH_SYSTEM32 = 0x800

FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "CreateFileW": (c_void_p, (c_wchar_p, c_uint32, c_uint32, c_void_p, c_uint32, c_uint32, c_void_p)),
    "CloseHandle": (c_int, (c_void_p,)),
}
"""Name -> what it returns, and what it takes."""

_PACKAGE = Path(__file__).absolute().parents[2]  # The folder of threepipe itself.

_named: Path | None = None


def use_library(path: str | os.PathLike[str] | None) -> None:
    """Have this process load the file at `path` from now on, whatever its hash; None takes that back."""
    global _named
    _named = None if path is None else Path(path).absolute()


def is_named(path: Path) -> bool:
    """Whether the user named this file himself, by `use_library` or by `THREEPIPE_WINTUN`."""
    return path == _named_by_user()


def find_library() -> Path:
    """The DLL to load: the one that was named, else beside the program, else the user's own.

    Loads and checks nothing. Raises `AdapterUnavailable` where there is none.
    """
    if named := _named_by_user():
        if named.is_file():
            return named
        raise _missing(f"{named}, which {VARIABLE} or the program names, is no file; name another")
    beside = [folder / DLL_NAME for folder in _program_folders()]
    folder = user_folder(process_architecture())
    for path in [*beside, folder / DLL_NAME]:
        if path.is_file():
            return path
    raise _missing(f"there is no {DLL_NAME} beside the program, nor in {folder}; get it: threepipe driver install")


def load_library(path: Path) -> ctypes.CDLL:
    """Load the DLL at `path`, which has to be the pinned release's unless the user named it himself.

    Its functions keep the last error (GetLastError). Raises `AdapterUnavailable` for a missing file,
    one for another architecture, and one of another content, and `PermissionDenied` for one that
    this user may not read; the texts tell them apart.
    """
    try:
        with _held(path) as content:
            if not is_named(path):
                RELEASE.check(content, process_architecture(), str(path))
            return _load(path, content)
    except FileNotFoundError:
        raise _missing(f"{path} is not there any more; get it: threepipe driver install") from None
    except PermissionError as error:
        if isinstance(error, PermissionDenied):
            raise
        text = f"this user may not read {path}; let him, or remove it and say: threepipe driver install"
        raise windows_error(PermissionDenied, ERROR_ACCESS_DENIED, text) from None


def unload_library(library: ctypes.CDLL) -> None:
    """Let go of what `load_library` returned, which is not to be called again, so that its file can be removed."""
    import _ctypes

    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)


def user_folder(architecture: str) -> Path:
    """Where `threepipe driver install` puts the DLL for that architecture. Raises `AdapterUnavailable`."""
    if data := os.environ.get("LOCALAPPDATA"):
        return Path(data, "threepipe", "driver", architecture)
    raise _missing("LOCALAPPDATA is not set, which names the user's folder for data; set it, or say where with --to")


def _named_by_user() -> Path | None:
    if _named is not None:
        return _named
    variable = os.environ.get(VARIABLE)
    return Path(variable).absolute() if variable else None


def _program_folders() -> list[Path]:
    """Where programs have their DLLs: by the executable, by the script, and in this package."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return [Path(file).absolute().parent for file in (sys.executable, main) if file] + [_PACKAGE]


@contextlib.contextmanager
def _held(path: Path) -> Iterator[bytes]:
    """The content of a file, which on Windows nobody can write, rename or replace until this is left.

    Without it, what is loaded by an administrator could be another file than the one that was checked.
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
            # What it needs in turn comes from the system's folder only.
            return ctypes.WinDLL(str(path.absolute()), use_last_error=True, winmode=LOAD_LIBRARY_SEARCH_SYSTEM32)
        return ctypes.CDLL(str(path.absolute()), use_errno=True)
    except OSError as error:
        found = architecture_of(content)
        code = getattr(error, "winerror", None) or ERROR_BAD_EXE_FORMAT
        reason = f"it is for {found}, this Python for {process_architecture()}" if found else error.strerror or error
        text = f"{path} cannot be loaded: {reason}; threepipe driver install gets the right one"
        raise windows_error(AdapterUnavailable, code, text) from None


def _missing(text: str) -> AdapterUnavailable:
    return windows_error(AdapterUnavailable, ERROR_FILE_NOT_FOUND, text)
