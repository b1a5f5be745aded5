"""The choice between the native core and pure Python for the work per packet, made nowhere else.

`threepipe-native` has functions and classes of the same names as the modules imported here; the docstrings there
describe both. On Windows it lacks those for descriptors. The environment variable THREEPIPE_PURE=1 disables it.
`NATIVE` is True if it is in use; else `REASON` says why not.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from threepipe.core.pump import End, HasFileno

if TYPE_CHECKING:
    import threepipe_native

__all__ = [
    "NATIVE",
    "REASON",
    "PacketSender",
    "Traffic",
    "Transport",
    "coalesce",
    "combine_ecn",
    "extract",
    "flow_fields",
    "internet_checksum",
    "measure",
    "pump",
    "receive",
    "receive_packets",
    "ring_receive",
    "ring_send",
    "send",
    "split",
]

try:
    if os.environ.get("THREEPIPE_PURE", "0") not in ("", "0"):
        raise ImportError("disabled by THREEPIPE_PURE")
    from threepipe_native import (
        Traffic,
        Transport,
        coalesce,
        combine_ecn,
        extract,
        flow_fields,
        internet_checksum,
        measure,
        ring_receive,
        ring_send,
        split,
    )
except (ImportError, SystemError) as error:  # A free-threaded Python raises the latter for this stable ABI.
    from threepipe.core.coalesce import coalesce
    from threepipe.core.ecn import combine_ecn
    from threepipe.core.flow import flow_fields
    from threepipe.core.packet import internet_checksum
    from threepipe.core.rings import ring_receive, ring_send
    from threepipe.core.superpacket import extract, measure, split
    from threepipe.core.transport import Traffic, Transport

    NATIVE, REASON = False, str(error)
else:
    NATIVE, REASON = True, ""

pump: Callable[[End, End, Sequence[HasFileno]], tuple[int, End | None]] | None = None
"""The native forwarding loop, or None without it; `threepipe.core.pump.forward` is Python's."""

PacketSender: "type[threepipe_native.PacketSender] | None" = None
"""A `threepipe.backend.PacketSender` for descriptors, or None without it."""

if NATIVE and sys.platform != "win32":
    from threepipe_native import PacketSender, pump, receive, receive_packets, send
else:
    from threepipe.core.descriptor import receive, receive_packets, send
