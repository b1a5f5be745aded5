"""The binding of Wintun's library: the 14 functions of wintun.h 0.14, with their types and errors.

This module knows adapters and sessions by their handles only. The functions that run for every packet are plain
attributes, which `core.rings` calls in bulk; all others are methods that raise. `library` chooses the file to load.
"""

import ctypes
import sys
import uuid
from ctypes import c_int, c_uint32, c_uint64, c_void_p, c_wchar_p
from typing import Any

from threepipe.errors import (
    AdapterBusy,
    AdapterError,
    AdapterGone,
    AdapterNotFound,
    AdapterUnavailable,
    NameTaken,
    PermissionDenied,
)
from threepipe.platforms.windows.log import Log
from threepipe.platforms.windows.winerror import (
    ERROR_ACCESS_DENIED,
    ERROR_FILE_NOT_FOUND,
    ERROR_NOT_FOUND,
    ERROR_PROC_NOT_FOUND,
    reason,
    windows_error,
)

__all__ = [
    "ERROR_BUFFER_OVERFLOW",
    "ERROR_HANDLE_EOF",
    "ERROR_INVALID_DATA",
    "ERROR_NO_MORE_ITEMS",
    "FUNCTIONS",
    "Wintun",
]

# <winerror.h>
ERROR_INVALID_DATA = 13
ERROR_HANDLE_EOF = 38
ERROR_BUFFER_OVERFLOW = 111
ERROR_ALREADY_EXISTS = 183
ERROR_NO_MORE_ITEMS = 259
ERROR_ALREADY_INITIALIZED = 1247
ERROR_INF_IN_USE_BY_DEVICES = 0xE000023D - (1 << 32)  # ctypes keeps errors as signed numbers.

if sys.platform == "win32":
    from ctypes import WINFUNCTYPE as CALLBACK
    from ctypes import get_last_error
else:
    from ctypes import CFUNCTYPE as CALLBACK
    from ctypes import get_errno as get_last_error

_Logger = CALLBACK(None, c_int, c_uint64, c_wchar_p)  # WINTUN_LOGGER_CALLBACK: level, FILETIME, message.

FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "WintunCreateAdapter": (c_void_p, (c_wchar_p, c_wchar_p, c_void_p)),
    "WintunOpenAdapter": (c_void_p, (c_wchar_p,)),
    "WintunCloseAdapter": (None, (c_void_p,)),
    "WintunGetAdapterLUID": (None, (c_void_p, c_void_p)),
    "WintunGetRunningDriverVersion": (c_uint32, ()),
    "WintunDeleteDriver": (c_int, ()),
    "WintunSetLogger": (None, (c_void_p,)),
    "WintunStartSession": (c_void_p, (c_void_p, c_uint32)),
    "WintunEndSession": (None, (c_void_p,)),
    "WintunGetReadWaitEvent": (c_void_p, (c_void_p,)),
    "WintunReceivePacket": (c_void_p, (c_void_p, c_void_p)),
    "WintunReleaseReceivePacket": (None, (c_void_p, c_void_p)),
    "WintunAllocateSendPacket": (c_void_p, (c_void_p, c_uint32)),
    "WintunSendPacket": (None, (c_void_p, c_void_p)),
}
"""The result and argument types of functions, by name. ctypes converts pointers fastest as plain numbers."""


class Wintun:
    """A loaded library. Thread-safe."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """`library` must keep the last error: loaded with `use_last_error`, or on other systems with `use_errno`.

        Raises `AdapterUnavailable` if it lacks a function.
        """
        functions = {name: _function(library, name) for name in FUNCTIONS}
        self._functions = functions
        self._log = Log()
        self._logger = _Logger(self._log.write)  # Kept alive: the library may call it at any time.
        functions["WintunSetLogger"](self._logger)
        # The following are the `PacketFunctions` of `core.rings`.
        gil_held = _holding_the_gil(library)
        self.receive_packet = _unconverted(gil_held, "WintunReceivePacket")
        self.receive_packet_with_error = functions["WintunReceivePacket"]
        self.release_receive_packet = _function(gil_held, "WintunReleaseReceivePacket")
        self.allocate_send_packet = _unconverted(gil_held, "WintunAllocateSendPacket")
        self.allocate_send_packet_with_error = functions["WintunAllocateSendPacket"]
        self.send_packet = _function(gil_held, "WintunSendPacket")
        self.addresses = (
            _address(self.receive_packet),
            _address(self.release_receive_packet),
            _address(self.allocate_send_packet),
            _address(self.send_packet),
        )

    def last_error(self) -> int:
        """Return the error code of this thread's last failed call, if that call keeps one."""
        return get_last_error()

    def reference_to(self, address: int) -> Any:
        """Return a pointer to `address`, in the form that the functions for every packet take fastest."""
        return ctypes.byref(ctypes.c_char.from_address(address))

    def memory_at(self, address: int, size: int) -> memoryview:
        """Return a view of `size` bytes at `address`, without reading them."""
        return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")

    def create_adapter(self, name: str, tunnel_type: str, guid: uuid.UUID) -> int:
        """Create an adapter and return its handle; the library renames the adapter if the name is taken.

        Takes seconds if Windows must install the driver. Raises `NameTaken`, `PermissionDenied` or
        `AdapterUnavailable`.
        """
        identity = ctypes.create_string_buffer(guid.bytes_le, 16)
        return self._handle(_NOT_CREATED, name, "WintunCreateAdapter", name, tunnel_type, ctypes.addressof(identity))

    def open_adapter(self, name: str) -> int:
        """Open the adapter of that name, ignoring case; return its handle.

        Raises `AdapterNotFound` or `PermissionDenied`.
        """
        return self._handle(_NOT_OPENED, name, "WintunOpenAdapter", name)

    def close_adapter(self, adapter: int) -> None:
        """Close the handle; the adapter is removed if this handle created it."""
        self._functions["WintunCloseAdapter"](adapter)

    def adapter_luid(self, adapter: int) -> int:
        """Return the NET_LUID of an adapter."""
        luid = c_uint64()
        self._functions["WintunGetAdapterLUID"](adapter, ctypes.addressof(luid))
        return luid.value

    def running_driver_version(self) -> tuple[int, int] | None:
        """Return the major and minor version of the loaded driver, or None."""
        version = self._functions["WintunGetRunningDriverVersion"]()
        return (version >> 16, version & 0xFFFF) if version else None

    def delete_driver(self) -> None:
        """Remove the driver from Windows. Raises `AdapterBusy` while any program has an adapter."""
        self._handle(_NOT_DELETED, "the driver", "WintunDeleteDriver")

    def start_session(self, adapter: int, name: str, capacity: int) -> int:
        """Take the link up, with rings of `capacity` bytes; return the session's handle.

        Raises `AdapterBusy` or `AdapterGone`.
        """
        return self._handle(_NOT_STARTED, name, "WintunStartSession", adapter, capacity)

    def end_session(self, session: int) -> None:
        """Take the link down. No thread may be in a call on the session, or wait for its event."""
        self._functions["WintunEndSession"](session)

    def read_wait_event(self, session: int) -> int:
        """Return the auto-reset event that is set when packets come, valid until the session ends."""
        return int(self._functions["WintunGetReadWaitEvent"](session))

    def silence(self) -> None:
        """Stop the library's logging, as necessary before the interpreter ends."""
        self._functions["WintunSetLogger"](None)

    def _handle(self, refusals: "Refusals", name: str, function: str, *arguments: object) -> int:
        """Call a function that returns a handle or true, or zero for failure; raise the error then."""
        handle, logged = self._log.during(lambda: self._functions[function](*arguments))
        if not handle:
            code = get_last_error()
            kind, text = refusals.get(code, (AdapterError, "{name}: {reason}"))
            log = f"; Wintun's log: {' / '.join(logged)}" if logged else ""
            raise windows_error(kind, code, text.format(name=name, reason=reason(code) if code else _NO_REASON) + log)
        return handle


_NO_REASON = "it failed without an error code"

Refusals = dict[int, tuple[type[AdapterError], str]]
"""The exception and its text about a {name}, by Windows' code."""

_NOT_CREATED: Refusals = {
    ERROR_ACCESS_DENIED: (PermissionDenied, "creating {name} needs administrator rights; use an elevated terminal"),
    ERROR_FILE_NOT_FOUND: (AdapterUnavailable, "{name} cannot be created, as the driver does not start; run:"
                           " threepipe doctor"),
    ERROR_ALREADY_EXISTS: (NameTaken, "an adapter created as {name} exists, perhaps renamed since; choose another"
                           " name"),
}  # fmt: skip

_NOT_OPENED: Refusals = {
    ERROR_ACCESS_DENIED: (PermissionDenied, "opening {name} needs administrator rights; use an elevated terminal"),
    ERROR_FILE_NOT_FOUND: (AdapterNotFound, "there is no adapter {name}, and no driver runs; create it"),
    ERROR_NOT_FOUND: (AdapterNotFound, "Wintun's driver has no adapter {name}; create it"),
}  # fmt: skip

_NOT_STARTED: Refusals = {
    ERROR_ACCESS_DENIED: (PermissionDenied, "a session on {name} needs administrator rights; use an elevated"
                          " terminal"),
    ERROR_ALREADY_INITIALIZED: (AdapterBusy, "{name} has a session in another program, or by another Adapter object of"
                                " this one; close that session first"),
    ERROR_FILE_NOT_FOUND: (AdapterGone, "{name} was removed by another program; create or open it again"),
    ERROR_NOT_FOUND: (AdapterGone, "{name} was removed by another program; create or open it again"),
}  # fmt: skip

_NOT_DELETED: Refusals = {
    ERROR_ACCESS_DENIED: (PermissionDenied, "removing {name} needs administrator rights; use an elevated terminal"),
    ERROR_INF_IN_USE_BY_DEVICES: (AdapterBusy, "{name} is in use; close the adapters of all programs first"),
}


def _function(library: ctypes.CDLL, name: str) -> Any:
    try:
        function = library[name]  # A new object each time, so that its types affect no other user.
    except AttributeError:
        text = f"{library._name} is not Wintun 0.14, as it lacks {name}; run: threepipe driver install"
        raise windows_error(AdapterUnavailable, ERROR_PROC_NOT_FOUND, text) from None
    function.restype, function.argtypes = FUNCTIONS[name]
    return function


def _address(function: Any) -> int:
    return ctypes.cast(function, c_void_p).value or 0


def _unconverted(library: ctypes.CDLL, name: str) -> Any:
    """Return a function that takes references and small numbers without conversion, which would double its time."""
    function = _function(library, name)
    del function.argtypes
    return function


def _holding_the_gil(library: ctypes.CDLL) -> ctypes.CDLL:
    """Return the same library for calls that hold the GIL and keep no last error.

    Such a call takes less time than releasing the GIL, and taking it again may cost milliseconds while another thread
    is busy. None of the calls waits or logs. ctypes has no such calls for x86 (stdcall).
    """
    if ctypes.sizeof(c_void_p) < 8:
        return library
    return ctypes.PyDLL(library._name, handle=library._handle)
