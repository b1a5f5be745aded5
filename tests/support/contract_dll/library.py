"""The contract library in ctypes: every function of contract.h, its structures and its numbers.

Tests use it to call Wintun's functions directly, or to act behind an adapter. It owns types and nothing
else: the platform has a binding of its own, and loads the same file. It works on Linux and Windows.
"""

import ctypes
import select
import sys
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p, c_wchar, c_wchar_p
from enum import IntEnum
from pathlib import Path
from typing import Any

__all__ = [
    "PROTOTYPES",
    "Contract",
    "Counters",
    "Fault",
    "Function",
    "Guid",
    "Interface",
    "Kind",
    "Logger",
    "Statistics",
]


class Function(IntEnum):
    """The functions that can be made to fail or to be slow."""

    CREATE_ADAPTER = 0
    OPEN_ADAPTER = 1
    CLOSE_ADAPTER = 2
    GET_ADAPTER_LUID = 3
    GET_RUNNING_DRIVER_VERSION = 4
    DELETE_DRIVER = 5
    SET_LOGGER = 6
    START_SESSION = 7
    END_SESSION = 8
    GET_READ_WAIT_EVENT = 9
    RECEIVE_PACKET = 10
    RELEASE_RECEIVE_PACKET = 11
    ALLOCATE_SEND_PACKET = 12
    SEND_PACKET = 13


class Fault(IntEnum):
    """The faults of `ContractSetFault`; contract.h explains their values."""

    STALL = 0
    LOST_WAKEUPS = 1
    CORRUPT_SIZE = 2
    CORRUPT_TAIL = 3
    CORRUPT_HEAD = 4
    TERMINATE = 5


class Kind(IntEnum):
    """The kind of an interface: its owner."""

    ADAPTER = 0
    NEIGHBOUR = 1
    FIXED = 2
    LEFTOVER = 3


class Guid(ctypes.Structure):
    _fields_ = [("data1", c_uint32), ("data2", c_uint16), ("data3", c_uint16), ("data4", c_uint8 * 8)]


class Interface(ctypes.Structure):
    """The structure CONTRACT_INTERFACE."""

    _fields_ = [
        ("name", c_wchar * 128),
        ("description", c_wchar * 264),
        ("guid", Guid),
        ("luid", c_uint64),
        ("kind", c_uint32),
        ("connected", c_int),
    ]


class Statistics(ctypes.Structure):
    """The structure CONTRACT_STATISTICS."""

    _fields_ = [
        (name, c_uint64)
        for name in (
            "received_packets",
            "received_bytes",
            "received_dropped",
            "sent_packets",
            "sent_bytes",
            "sent_discarded",
            "network_errors",
        )
    ]


class Counters(ctypes.Structure):
    """The structure CONTRACT_COUNTERS."""

    _fields_ = [
        (name, c_uint64)
        for name in (
            "use_after_end",
            "end_inside_call",
            "use_after_close",
            "wrong_release",
            "wrong_send",
            "oversized_packet",
            "released_out_of_order",
            "sent_out_of_order",
            "unreleased_at_end",
            "unsent_at_end",
            "lost_wakeups",
            "adapters",
            "sessions",
            "sleepers",
        )
    ]


if sys.platform == "win32":
    _Library, _options, _callback, _last_error = (
        ctypes.WinDLL,
        {"use_last_error": True},
        ctypes.WINFUNCTYPE,
        "get_last_error",
    )
else:
    _Library, _options, _callback, _last_error = ctypes.CDLL, {"use_errno": True}, ctypes.CFUNCTYPE, "get_errno"

Logger = _callback(None, c_int, c_uint64, c_wchar_p)
"""The callback of `WintunSetLogger`: level, FILETIME, text. Keep it alive; it must not raise."""

PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "WintunCreateAdapter": (c_void_p, (c_wchar_p, c_wchar_p, POINTER(Guid))),
    "WintunOpenAdapter": (c_void_p, (c_wchar_p,)),
    "WintunCloseAdapter": (None, (c_void_p,)),
    "WintunGetAdapterLUID": (None, (c_void_p, POINTER(c_uint64))),
    "WintunGetRunningDriverVersion": (c_uint32, ()),
    "WintunDeleteDriver": (c_int, ()),
    "WintunSetLogger": (None, (Logger,)),
    "WintunStartSession": (c_void_p, (c_void_p, c_uint32)),
    "WintunEndSession": (None, (c_void_p,)),
    "WintunGetReadWaitEvent": (c_void_p, (c_void_p,)),
    "WintunReceivePacket": (c_void_p, (c_void_p, POINTER(c_uint32))),
    "WintunReleaseReceivePacket": (None, (c_void_p, c_void_p)),
    "WintunAllocateSendPacket": (c_void_p, (c_void_p, c_uint32)),
    "WintunSendPacket": (None, (c_void_p, c_void_p)),
    "ContractSetNetwork": (None, (c_wchar_p, c_uint32, c_uint32)),
    "ContractGetNetworkPort": (c_uint32, (c_void_p,)),
    "ContractSetDiscard": (None, (c_void_p, c_int)),
    "ContractInject": (c_int, (c_void_p, c_char_p, c_uint32)),
    "ContractInjectMany": (c_uint32, (c_void_p, c_char_p, c_uint32, c_uint32)),
    "ContractTake": (c_uint32, (c_void_p, c_char_p, c_uint32, c_uint32)),
    "ContractSettle": (c_int, (c_void_p, c_uint32)),
    "ContractAddInterface": (c_int, (c_wchar_p, c_uint32)),
    "ContractListInterfaces": (c_uint32, (POINTER(Interface), c_uint32)),
    "ContractDescribe": (None, (c_void_p, POINTER(Interface))),
    "ContractStatistics": (None, (c_void_p, POINTER(Statistics))),
    "ContractFailCall": (c_int, (c_uint32, c_uint32, c_uint32)),
    "ContractDelayCall": (c_int, (c_uint32, c_uint32, c_uint32)),
    "ContractSetFault": (c_int, (c_void_p, c_uint32, c_uint32)),
    "ContractCounters": (None, (POINTER(Counters),)),
    "ContractSetStrict": (None, (c_int,)),
    "ContractReset": (None, ()),
}
"""Result and argument types, by the name of the function."""

_WAIT_OBJECT_0 = 0


class Contract:
    """A loaded library: its functions under their own names, and helpers that every test needs.

    A file loaded twice has one state, so it can be loaded beside the platform's binding.
    """

    def __init__(self, path: Path) -> None:
        library: Any = _Library(str(path), **_options)
        for name, (result, arguments) in PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(f"contract.h has no {name}")  # For the type checker, which does not see setattr.

    @staticmethod
    def error() -> int:
        """Return the last error of this thread, as a Windows code."""
        number: int = getattr(ctypes, _last_error)()
        return number

    @staticmethod
    def wait(event: int, milliseconds: int) -> bool:
        """Wait for an event and reset it; return False if it was not set in time."""
        if sys.platform == "win32":
            return bool(ctypes.windll.kernel32.WaitForSingleObject(c_void_p(event), milliseconds) == _WAIT_OBJECT_0)
        import os

        poll = select.poll()
        poll.register(event, select.POLLIN)
        try:
            return bool(poll.poll(milliseconds)) and bool(os.read(event, 8))
        except BlockingIOError:  # Another waiter was faster.
            return False

    def counters(self) -> dict[str, int]:
        """Return the counters that are not 0, by name."""
        counters = Counters()
        self.ContractCounters(counters)
        return {name: value for name, *_ in Counters._fields_ if (value := getattr(counters, name))}

    def statistics(self, adapter: int) -> dict[str, int]:
        """Return the statistics of an interface that are not 0, by name."""
        statistics = Statistics()
        self.ContractStatistics(adapter, statistics)
        return {name: value for name, *_ in Statistics._fields_ if (value := getattr(statistics, name))}

    def describe(self, adapter: int) -> Interface:
        """Return the description of the interface of an adapter."""
        interface = Interface()
        self.ContractDescribe(adapter, interface)
        return interface

    def interfaces(self) -> list[Interface]:
        """Return all interfaces, the newest first."""
        found = (Interface * 64)()
        return list(found[: self.ContractListInterfaces(found, len(found))])

    def inject(self, adapter: int, packet: bytes) -> bool:
        """Give the program a packet; return False without room or session."""
        return bool(self.ContractInject(adapter, packet, len(packet)))

    def take(self, adapter: int, milliseconds: int = 0) -> bytes:
        """Return the oldest packet that the program sent; empty if there was none in time."""
        packet = ctypes.create_string_buffer(0xFFFF)
        size = self.ContractTake(adapter, packet, len(packet), milliseconds)
        return packet.raw[:size]

    def receive(self, session: int) -> tuple[int, bytes]:
        """Return the address of the next packet, to be released later, and its bytes; 0 if there is none."""
        size = c_uint32()
        address = self.WintunReceivePacket(session, size) or 0
        return address, ctypes.string_at(address, size.value) if address else b""

    def allocate(self, session: int, packet: bytes) -> int:
        """Allocate a place with `packet`, to be sent later, and return its address; 0 without room."""
        address: int = self.WintunAllocateSendPacket(session, len(packet)) or 0
        if address:
            ctypes.memmove(address, packet, len(packet))
        return address

    def send(self, session: int, packet: bytes) -> bool:
        """Allocate and send; return False without room."""
        if address := self.allocate(session, packet):
            self.WintunSendPacket(session, address)
        return bool(address)
