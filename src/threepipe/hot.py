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
    from threepipe.coalesce import coalesce
    from threepipe.exchange import give, take
    from threepipe.offload import measure, split
    from threepipe.packet import internet_checksum
    from threepipe.sealing import Transport
    from threepipe.traffic import Traffic

    NATIVE, REASON = False, str(error)
else:
    NATIVE, REASON = True, ""

if NATIVE and sys.platform != "win32":
    from threepipe_native import pump, receive, send
else:
    from threepipe.descriptor import receive, send
    from threepipe.pump import pump
