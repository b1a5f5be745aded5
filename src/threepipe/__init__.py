"""threepipe: a dumb layer-3 pipe for Python.

A program gets a virtual network adapter of the operating system and reads and writes the IP packets
that pass through it, in bundles. This file is the whole public surface of that contract.
"""

from typing import TYPE_CHECKING

from threepipe._version import __version__ as __version__
from threepipe.adapter import Adapter, adapters
from threepipe.backend import AdapterInfo, AdapterStatistics
from threepipe.bundle import Bundle
from threepipe.endpoint import Endpoint
from threepipe.errors import (
    AdapterBusy,
    AdapterClosed,
    AdapterError,
    AdapterGone,
    AdapterNotFound,
    AdapterUnavailable,
    EndpointEnded,
    EndpointError,
    InvalidPacket,
    InvalidSetting,
    IPv6Unavailable,
    LinkDown,
    NamespaceNotFound,
    NameTaken,
    PermissionDenied,
    RingCorrupt,
    RingEnded,
    SessionClosed,
    SessionExists,
    ThreepipeError,
)
from threepipe.pipe import pipe
from threepipe.session import Session, SessionStatistics
from threepipe.settings import WindowsSettings

if TYPE_CHECKING:
    from threepipe.endpoints import open_endpoint
    from threepipe.memory import MemoryAdapter

__all__ = [
    "Adapter",
    "AdapterBusy",
    "AdapterClosed",
    "AdapterError",
    "AdapterGone",
    "AdapterInfo",
    "AdapterNotFound",
    "AdapterStatistics",
    "AdapterUnavailable",
    "Bundle",
    "Endpoint",
    "EndpointEnded",
    "EndpointError",
    "IPv6Unavailable",
    "InvalidPacket",
    "InvalidSetting",
    "LinkDown",
    "MemoryAdapter",
    "NameTaken",
    "NamespaceNotFound",
    "PermissionDenied",
    "RingCorrupt",
    "RingEnded",
    "Session",
    "SessionClosed",
    "SessionExists",
    "SessionStatistics",
    "ThreepipeError",
    "WindowsSettings",
    "adapters",
    "open_endpoint",
    "pipe",
]


def __getattr__(name: str) -> object:
    """Load a name when it is first used, as most programs need only adapters of the system."""
    if name == "MemoryAdapter":
        from threepipe.memory import MemoryAdapter

        return MemoryAdapter
    if name == "open_endpoint":
        from threepipe.endpoints import open_endpoint

        return open_endpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
