"""The choice between the native core and pure Python for the work per packet, made nowhere else.

`threepipe._native` has functions and classes of the same names as the modules imported here; the docstrings there
describe both. On Windows it lacks those for descriptors. The environment variable THREEPIPE_PURE=1 disables it.
`NATIVE` is True if it is in use; else `REASON` says why not.
"""

import sys
from collections.abc import Callable, Sequence

from threepipe.core.ends import End, HasFileno, joinable
from threepipe.core.installed import obstacle

__all__ = [
    "ENDS",
    "NATIVE",
    "REASON",
    "Gatherer",
    "PacketSender",
    "Traffic",
    "Transport",
    "coalesce",
    "combine_ecn",
    "extract",
    "flow_fields",
    "internet_checksum",
    "joins",
    "measure",
    "pump",
    "receive",
    "receive_packets",
    "ring_receive",
    "ring_send",
    "send",
    "send_coalesced",
    "split",
]

REASON = obstacle()
NATIVE = not REASON

if NATIVE:
    from threepipe._native import (
        Gatherer,
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
else:
    from threepipe.core.coalesce import coalesce
    from threepipe.core.ecn import combine_ecn
    from threepipe.core.flow import flow_fields
    from threepipe.core.gatherer import Gatherer
    from threepipe.core.packet import internet_checksum
    from threepipe.core.rings import ring_receive, ring_send
    from threepipe.core.superpacket import extract, measure, split
    from threepipe.core.transport import Traffic, Transport

pump: Callable[[End, End, Sequence[HasFileno]], tuple[int, End | None]] | None = None
"""The native forwarding loop, or None without it; `threepipe.core.pump.forward` is Python's."""

ENDS: frozenset[str] = frozenset()
"""The kinds of ends that `pump` knows on this system."""

if NATIVE and sys.platform != "win32":
    from threepipe._native import KINDS_OF_ENDS, PacketSender, pump, receive, receive_packets, send, send_coalesced

    ENDS = frozenset(KINDS_OF_ENDS.split())
else:
    from threepipe.core.descriptor import receive, receive_packets, send, send_coalesced
    from threepipe.core.sender import PacketSender


def joins(left: End, right: End) -> bool:
    """Return True if `pump` can join the two ends on this system."""
    return pump is not None and {left.kind, right.kind} <= ENDS and joinable(left, right)
