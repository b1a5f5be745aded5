"""Windows' event objects, and waiting for them, with kernel32.dll by ctypes. Knows nothing of packets.

Other threads of Python run during a call that waits. Functions and constants are those of <synchapi.h>,
<handleapi.h> and <winbase.h>.
"""

import sys

assert sys.platform == "win32"

import ctypes
import math
from collections.abc import Callable
from ctypes import POINTER, byref, c_int, c_uint8, c_uint32, c_void_p
from functools import cache
from typing import Any

from threepipe.errors import AdapterError
from threepipe.platforms.windows.winerror import reason, windows_error

__all__ = ["KernelEvents", "system"]

WT_EXECUTEONLYONCE = 0x8
DUPLICATE_SAME_ACCESS = 0x2
INVALID_HANDLE_VALUE = c_void_p(-1).value
WAIT_FAILED = 0xFFFFFFFF

_Callback = ctypes.WINFUNCTYPE(None, c_void_p, c_uint8)  # WAITORTIMERCALLBACK

FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "CloseHandle": (c_int, (c_void_p,)),
    "CreateEventW": (c_void_p, (c_void_p, c_int, c_int, c_void_p)),
    "DuplicateHandle": (c_int, (c_void_p, c_void_p, c_void_p, POINTER(c_void_p), c_uint32, c_int, c_uint32)),
    "GetCurrentProcess": (c_void_p, ()),
    "RegisterWaitForSingleObject": (c_int, (POINTER(c_void_p), c_void_p, _Callback, c_void_p, c_uint32, c_uint32)),
    "ResetEvent": (c_int, (c_void_p,)),
    "SetEvent": (c_int, (c_void_p,)),
    "UnregisterWaitEx": (c_int, (c_void_p, c_void_p)),
    "WaitForMultipleObjects": (c_uint32, (c_uint32, c_void_p, c_int, c_uint32)),
}
"""The result and argument types of functions, by name."""


@cache
def system() -> "KernelEvents":
    """Return the events of this Windows; the first call looks up the functions."""
    return KernelEvents()


class KernelEvents:
    """The `Events` of `waiting`, with kernel32.dll."""

    def __init__(self) -> None:
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        self._functions = {name: getattr(kernel, name) for name in FUNCTIONS}
        for name, (result, arguments) in FUNCTIONS.items():
            self._functions[name].restype, self._functions[name].argtypes = result, arguments

    def create(self) -> int:
        return int(self._call("CreateEventW", None, True, False, None))

    def duplicate(self, event: int) -> int:
        process = self._functions["GetCurrentProcess"]()
        copy = c_void_p()
        self._call("DuplicateHandle", process, event, process, byref(copy), 0, False, DUPLICATE_SAME_ACCESS)
        return int(copy.value or 0)

    def set(self, event: int) -> None:
        self._call("SetEvent", event)

    def reset(self, event: int) -> None:
        self._call("ResetEvent", event)

    def close(self, event: int) -> None:
        self._call("CloseHandle", event)

    def waiter(self, *events: int) -> Callable[[float], None]:
        wait, count, handles = self._functions["WaitForMultipleObjects"], len(events), (c_void_p * len(events))(*events)

        def wait_for(seconds: float) -> None:
            if wait(count, handles, False, _milliseconds(seconds)) == WAIT_FAILED:
                raise _refused("WaitForMultipleObjects")

        return wait_for

    def watch(self, event: int, timeout: float, fired: Callable[[], None]) -> Callable[[], None]:
        callback = _Callback(lambda _context, _timed_out: fired())
        wait = c_void_p()
        milliseconds = _milliseconds(timeout)
        self._call("RegisterWaitForSingleObject", byref(wait), event, callback, None, milliseconds, WT_EXECUTEONLYONCE)

        def cancel() -> None:
            # The call waits for a running callback, so `callback` must live until it returns.
            self._call("UnregisterWaitEx", wait, INVALID_HANDLE_VALUE)
            _ = callback

        return cancel

    def _call(self, name: str, *arguments: object) -> Any:
        if not (result := self._functions[name](*arguments)):
            raise _refused(name)
        return result


def _refused(name: str) -> AdapterError:
    code = ctypes.get_last_error()
    return windows_error(AdapterError, code, f"{name}: {reason(code)}")


def _milliseconds(seconds: float) -> int:
    """Convert to milliseconds, rounded up, so that a short wait does not become a busy loop."""
    return math.ceil(seconds * 1000)
