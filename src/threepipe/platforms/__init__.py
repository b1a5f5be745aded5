"""Chooses the operating system, once. Every platform has these functions and needs no other.

A platform module imports nothing at import time that other systems lack.
"""

import sys

if sys.platform == "linux":
    from threepipe.platforms.linux.device import adapters, create, open_existing
    from threepipe.platforms.linux.inherited import open_inherited
    from threepipe.platforms.linux.namespace import private_networks
    from threepipe.platforms.linux.policy import free_table, path_mtu, routed
    from threepipe.platforms.linux.probe import probe
    from threepipe.platforms.linux.sniff import open_capture
    from threepipe.platforms.linux.sockets import enlarge_buffers, open_datagrams
elif sys.platform == "win32":
    from threepipe.platforms.unsupported import (
        free_table,
        open_capture,
        open_inherited,
        path_mtu,
        private_networks,
        routed,
    )
    from threepipe.platforms.windows.device import adapters, create, open_existing
    from threepipe.platforms.windows.probe import probe
    from threepipe.platforms.windows.sockets import enlarge_buffers, open_datagrams
else:
    from threepipe.platforms.unsupported import (
        adapters,
        create,
        enlarge_buffers,
        free_table,
        open_capture,
        open_datagrams,
        open_existing,
        open_inherited,
        path_mtu,
        private_networks,
        probe,
        routed,
    )

__all__ = [
    "adapters",
    "create",
    "enlarge_buffers",
    "free_table",
    "open_capture",
    "open_datagrams",
    "open_existing",
    "open_inherited",
    "path_mtu",
    "private_networks",
    "probe",
    "routed",
]
