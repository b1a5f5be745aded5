"""threepipe: a dumb layer-3 pipe for Python.

A program gets a virtual network adapter of the operating system and reads and writes the IP packets
that pass through it, in bundles. This file is the whole public surface of that contract.
"""

from typing import TYPE_CHECKING

from threepipe._version import __version__ as __version__
from threepipe.adapter import Adapter, adapters
from threepipe.backend import AdapterInfo, AdapterStatistics
from threepipe.bundle import Bundle
from threepipe.core import fast
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
from threepipe.piping import pipe, pipe_async
from threepipe.session import Session, SessionStatistics
from threepipe.settings import WindowsSettings

if TYPE_CHECKING:
    from threepipe.endpoints import open_endpoint
    from threepipe.endpoints.environment import from_environment
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
    "from_environment",
    "native_core",
    "open_endpoint",
    "pipe",
    "pipe_async",
]

native_core = fast.NATIVE
"""True if the native core does the work per packet; False in pure Python, and `threepipe doctor` says why."""

_MODULES_OF_NAMES = {
    "MemoryAdapter": "threepipe.memory",
    "from_environment": "threepipe.endpoints.environment",
    "open_endpoint": "threepipe.endpoints",
}
_MODULES = ("packet", "ring", "testing", "wireguard")


def __getattr__(name: str) -> object:
    """Load a name or module when it is first used, as most programs need only adapters of the system."""
    from importlib import import_module

    if name in _MODULES_OF_NAMES:
        return getattr(import_module(_MODULES_OF_NAMES[name]), name)
    if name in _MODULES:
        return import_module(f"threepipe.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
