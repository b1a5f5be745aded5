"""The binding of Wintun's library: the 14 functions of wintun.h 0.14, with their types and their errors.

Knows no adapters and sessions but by their handles. The functions that run for every packet are given
as they are, for `port` to call in bulk; all others are methods that raise. Which file is loaded is `library`'s.
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
"""Name -> what it returns, and what it takes. Pointers are plain numbers, which is what ctypes converts fastest."""


class Wintun:
    """A loaded library. Every method may be called from any thread."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """`library` keeps the last error: loaded with `use_last_error`, or `use_errno` where that is not Windows.

        Raises `AdapterUnavailable` where it lacks a function.
        """
        functions = {name: _function(library, name) for name in FUNCTIONS}
        self._functions = functions
        self._log = Log()
        self._logger = _Logger(self._log.take)  # Kept, for the library calls it whenever it likes.
        functions["WintunSetLogger"](self._logger)
        # What follows is what `exchange` wants of a `Library`.
        hot = _holding_the_gil(library)
        self.receive_packet = _unconverted(hot, "WintunReceivePacket")
        self.receive_packet_or_say_why = functions["WintunReceivePacket"]
        self.release_receive_packet = _function(hot, "WintunReleaseReceivePacket")
        self.allocate_send_packet = _unconverted(hot, "WintunAllocateSendPacket")
        self.allocate_send_packet_or_say_why = functions["WintunAllocateSendPacket"]
        self.send_packet = _function(hot, "WintunSendPacket")
        self.addresses = (
            _address(self.receive_packet),
            _address(self.release_receive_packet),
            _address(self.allocate_send_packet),
            _address(self.send_packet),
        )

    def last_error(self) -> int:
        """Why the last call of this thread failed, if it was one that says so."""
        return get_last_error()

    def reference_to(self, address: int) -> Any:
        """A pointer with that value, as functions take it quickest that run for every packet."""
        return ctypes.byref(ctypes.c_char.from_address(address))

    def memory_at(self, address: int, size: int) -> memoryview:
        """That memory, whatever is there; nothing is read."""
        return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")

    def create_adapter(self, name: str, tunnel_type: str, guid: uuid.UUID) -> int:
        """Make an adapter and return its handle; its name may become another where that is taken.

        Takes seconds where the driver has to be installed. Raises `NameTaken`, `PermissionDenied`,
        `AdapterUnavailable`.
        """
        identity = ctypes.create_string_buffer(guid.bytes_le, 16)
        return self._handle(_NOT_CREATED, name, "WintunCreateAdapter", name, tunnel_type, ctypes.addressof(identity))

    def open_adapter(self, name: str) -> int:
        """A handle of the adapter of that name in any case. Raises `AdapterNotFound`, `PermissionDenied`."""
        return self._handle(_NOT_OPENED, name, "WintunOpenAdapter", name)

    def close_adapter(self, adapter: int) -> None:
        """Let the adapter go; it is removed where this handle created it."""
        self._functions["WintunCloseAdapter"](adapter)

    def adapter_luid(self, adapter: int) -> int:
        """The NET_LUID of an adapter."""
        luid = c_uint64()
        self._functions["WintunGetAdapterLUID"](adapter, ctypes.addressof(luid))
        return luid.value

    def running_driver_version(self) -> tuple[int, int] | None:
        """Major and minor number of the driver that is loaded, or None."""
        version = self._functions["WintunGetRunningDriverVersion"]()
        return (version >> 16, version & 0xFFFF) if version else None

    def delete_driver(self) -> None:
        """Take the driver out of the system. Raises `AdapterBusy` while any program has an adapter."""
        self._handle(_NOT_DELETED, "the driver", "WintunDeleteDriver")

    def start_session(self, adapter: int, name: str, capacity: int) -> int:
        """Take the link up, with rings of `capacity` bytes; return the session's handle.

        Raises `AdapterBusy` and `AdapterGone`.
        """
        return self._handle(_NOT_STARTED, name, "WintunStartSession", adapter, capacity)

    def end_session(self, session: int) -> None:
        """Take the link down. Nobody may be in a call on the session, or wait for its event."""
        self._functions["WintunEndSession"](session)

    def read_wait_event(self, session: int) -> int:
        """The handle of the auto-reset event that is set when packets came. Good until the session's end."""
        return int(self._functions["WintunGetReadWaitEvent"](session))

    def silence(self) -> None:
        """Have the library log no more, as it must at the end of the interpreter."""
        self._functions["WintunSetLogger"](None)

    def _handle(self, refusals: "Refusals", name: str, function: str, *arguments: object) -> int:
        """Call what returns a handle or a truth, and nothing where it failed."""
        handle, complaints = self._log.during(lambda: self._functions[function](*arguments))
        if not handle:
            code = get_last_error()
            kind, text = refusals.get(code, (AdapterError, "{name}: {reason}"))
            said = f"; Wintun says: {' / '.join(complaints)}" if complaints else ""
            raise windows_error(kind, code, text.format(name=name, reason=reason(code) if code else _UNTOLD) + said)
        return handle


_UNTOLD = "it failed without saying why"

Refusals = dict[int, tuple[type[AdapterError], str]]
"""For a code: the exception, and what it says of a {name}."""

_NOT_CREATED: Refusals = {
    ERROR_ACCESS_DENIED: (PermissionDenied, "making {name} takes an administrator; run this as one"),
    ERROR_FILE_NOT_FOUND: (AdapterUnavailable, "{name} cannot be made, for the driver does not start here; threepipe"
                           " doctor says what this machine offers"),
    ERROR_ALREADY_EXISTS: (NameTaken, "an adapter that was made as {name} exists, perhaps under another name now; take"
                           " another name"),
}  # fmt: skip

_NOT_OPENED: Refusals = {
    ERROR_ACCESS_DENIED: (PermissionDenied, "opening {name} takes an administrator; run this as one"),
    ERROR_FILE_NOT_FOUND: (AdapterNotFound, "no adapter is named {name}, and no driver runs; create it"),
    ERROR_NOT_FOUND: (AdapterNotFound, "no adapter of Wintun's driver is named {name}; create it"),
}  # fmt: skip

_NOT_STARTED: Refusals = {
    ERROR_ACCESS_DENIED: (PermissionDenied, "a session on {name} takes an administrator; run this as one"),
    ERROR_ALREADY_INITIALIZED: (AdapterBusy, "{name} has a session in another program, or by another Adapter object of"
                                " this one; close it there first"),
    ERROR_FILE_NOT_FOUND: (AdapterGone, "{name} was removed by somebody else; make or open it again"),
    ERROR_NOT_FOUND: (AdapterGone, "{name} was removed by somebody else; make or open it again"),
}  # fmt: skip

_NOT_DELETED: Refusals = {
    ERROR_ACCESS_DENIED: (PermissionDenied, "removing {name} takes an administrator; run this as one"),
    ERROR_INF_IN_USE_BY_DEVICES: (AdapterBusy, "{name} is in use; have all programs close their adapters first"),
}


def _function(library: ctypes.CDLL, name: str) -> Any:
    try:
        function = library[name]  # Another object each time, so that its types are set for nobody else.
    except AttributeError:
        text = f"{library._name} is no library of Wintun 0.14, for it lacks {name}; threepipe driver install gets one"
        raise windows_error(AdapterUnavailable, ERROR_PROC_NOT_FOUND, text) from None
    function.restype, function.argtypes = FUNCTIONS[name]
    return function


def _address(function: Any) -> int:
    return ctypes.cast(function, c_void_p).value or 0


def _unconverted(library: ctypes.CDLL, name: str) -> Any:
    """A function that takes its arguments as they are: references and small numbers.

    Converting them would take as long as the call.
    """
    function = _function(library, name)
    del function.argtypes
    return function


def _holding_the_gil(library: ctypes.CDLL) -> ctypes.CDLL:
    """The same library, for calls during which no other thread of Python runs, and which keep no last error.

    They take less time than letting others run, and coming back from that may take milliseconds while
    another thread is busy. None of them waits or logs. On x86 ctypes has no such calls (stdcall).
    """
    if ctypes.sizeof(c_void_p) < 8:
        return library
    return ctypes.PyDLL(library._name, handle=library._handle)
