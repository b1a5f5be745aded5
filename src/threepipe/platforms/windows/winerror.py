"""Windows' error codes, and `AdapterError` with such a code. Knows no function that fails."""

import ctypes
import sys
from typing import TypeVar

from threepipe.errors import AdapterError

__all__ = [
    "ERROR_ACCESS_DENIED",
    "ERROR_BAD_EXE_FORMAT",
    "ERROR_FILE_NOT_FOUND",
    "ERROR_INVALID_IMAGE_HASH",
    "ERROR_INVALID_PARAMETER",
    "ERROR_NOT_FOUND",
    "ERROR_NOT_SUPPORTED",
    "ERROR_OBJECT_ALREADY_EXISTS",
    "ERROR_PROC_NOT_FOUND",
    "NO_ERROR",
    "error_code",
    "reason",
    "windows_error",
]

# <winerror.h>
NO_ERROR = 0
ERROR_FILE_NOT_FOUND = 2
ERROR_ACCESS_DENIED = 5
ERROR_NOT_SUPPORTED = 50
ERROR_INVALID_PARAMETER = 87
ERROR_PROC_NOT_FOUND = 127
ERROR_BAD_EXE_FORMAT = 193
ERROR_INVALID_IMAGE_HASH = 577
ERROR_NOT_FOUND = 1168
ERROR_OBJECT_ALREADY_EXISTS = 5010

Kind = TypeVar("Kind", bound=AdapterError)


def windows_error(kind: type[Kind], code: int, text: str) -> Kind:
    """Return an error whose `winerror` is `code`; Python derives its `errno`.

    Other systems have no `winerror`: for the stand-ins of DLLs there, `errno` is `code`.
    """
    if sys.platform == "win32":
        return kind(0, text, None, code)
    return kind(code, text)


def error_code(error: OSError) -> int | None:
    """Return the code that `windows_error` was given."""
    if sys.platform == "win32":
        return error.winerror
    return error.errno


def reason(code: int) -> str:
    """Return Windows' text for `code`, in the user's language."""
    if sys.platform == "win32":
        return ctypes.FormatError(code).strip()
    return f"error {code}"
