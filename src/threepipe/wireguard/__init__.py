"""WireGuard: the protocol without I/O, and a device that joins it to an adapter and to UDP sockets.

This file is the public surface. `Tunnel` is the protocol alone, for programs that bring their own sockets and clock.
"""

try:
    import cryptography  # noqa: F401  # Its modules are loaded where they are used.
except ModuleNotFoundError as error:
    advice = 'threepipe.wireguard needs cryptography; run: pip install "threepipe[wireguard]"'
    raise ModuleNotFoundError(advice, name=error.name) from None

from threepipe.wireguard.constants import Timing
from threepipe.wireguard.kernel_routes import KernelRoutes
from threepipe.wireguard.keys import generate_key, link_local, public_key
from threepipe.wireguard.next_hops import NextHopRouting, Routes
from threepipe.wireguard.opening import Device
from threepipe.wireguard.quick.config import read_config
from threepipe.wireguard.quick.sections import Config
from threepipe.wireguard.settings import (
    Change,
    PeerChange,
    PeerStatus,
    Status,
)
from threepipe.wireguard.tunnel import Event, Tunnel
from threepipe.wireguard.values import key_from_text, key_to_text, parse_networks

__all__ = [
    "Change",
    "Config",
    "Device",
    "Event",
    "KernelRoutes",
    "NextHopRouting",
    "PeerChange",
    "PeerStatus",
    "Routes",
    "Status",
    "Timing",
    "Tunnel",
    "generate_key",
    "key_from_text",
    "key_to_text",
    "link_local",
    "parse_networks",
    "public_key",
    "read_config",
]
