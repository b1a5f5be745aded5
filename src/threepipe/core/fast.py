"""The functions that run for every packet: the native core's where it is installed, else their reference.

`threepipe-native` has the same functions by the same names; what they do is written in the modules they
are otherwise taken from. On Windows it lacks those of descriptors. The environment variable THREEPIPE_PURE=1 refuses
it; `REASON` says why there is none.
"""

import os
import sys

__all__ = [
    "NATIVE",
    "REASON",
    "Traffic",
    "Transport",
    "coalesce",
    "give",
    "internet_checksum",
    "measure",
    "pump",
    "receive",
    "send",
    "split",
    "take",
]

try:
    if os.environ.get("THREEPIPE_PURE", "0") not in ("", "0"):
        raise ImportError("THREEPIPE_PURE refuses it")
    from threepipe_native import (
        Traffic,
        Transport,
        coalesce,
        give,
        internet_checksum,
        measure,
        split,
        take,
    )
except ImportError as error:
    from threepipe.core.coalesce import coalesce
    from threepipe.core.packet import internet_checksum
    from threepipe.core.rings import give, take
    from threepipe.core.superpacket import measure, split
    from threepipe.core.transport import Traffic, Transport

    NATIVE, REASON = False, str(error)
else:
    NATIVE, REASON = True, ""

if NATIVE and sys.platform != "win32":
    from threepipe_native import pump, receive, send
else:
    from threepipe.core.descriptor import receive, send
    from threepipe.core.pump import pump
