"""The functions that run for every packet: the native core's where it is installed, else their reference.

`threepipe-native` has the same functions by the same names; what they do is written in the modules they
are otherwise taken from. The environment variable THREEPIPE_PURE=1 refuses it; `REASON` says why there
is none.
"""

import os

__all__ = [
    "NATIVE",
    "REASON",
    "Traffic",
    "Transport",
    "coalesce",
    "internet_checksum",
    "measure",
    "pump",
    "receive",
    "send",
    "split",
]

try:
    if os.environ.get("THREEPIPE_PURE", "0") not in ("", "0"):
        raise ImportError("THREEPIPE_PURE refuses it")
    from threepipe_native import (
        Traffic,
        Transport,
        coalesce,
        internet_checksum,
        measure,
        pump,
        receive,
        send,
        split,
    )
except ImportError as error:
    from threepipe.coalesce import coalesce
    from threepipe.descriptor import receive, send
    from threepipe.offload import measure, split
    from threepipe.packet import internet_checksum
    from threepipe.pump import pump
    from threepipe.sealing import Transport
    from threepipe.traffic import Traffic

    NATIVE, REASON = False, str(error)
else:
    NATIVE, REASON = True, ""
