"""The four messages of the protocol (paper, section 5.4): their layouts. Little-endian throughout; no cryptography."""

import struct

__all__ = [
    "COOKIE_REPLY",
    "COOKIE_REPLY_SIZE",
    "INITIATION",
    "INITIATION_SIZE",
    "MACS_SIZE",
    "RESPONSE",
    "RESPONSE_SIZE",
    "SHORTEST_TRANSPORT",
    "TYPE_COOKIE_REPLY",
    "TYPE_INITIATION",
    "TYPE_RESPONSE",
    "TYPE_TRANSPORT",
    "kind_of",
]

TYPE_INITIATION, TYPE_RESPONSE, TYPE_COOKIE_REPLY, TYPE_TRANSPORT = 1, 2, 3, 4

INITIATION = struct.Struct("<II32s48s28s")
"""Type, sender's index, ephemeral public key, sealed static public key, sealed timestamp; then the two MACs."""
RESPONSE = struct.Struct("<III32s16s")
"""Type, sender's index, receiver's index, ephemeral public key, sealed nothing; then the two MACs."""
COOKIE_REPLY = struct.Struct("<II24s32s")
"""Type, receiver's index, nonce, sealed cookie."""
MACS_SIZE = 32
INITIATION_SIZE = INITIATION.size + MACS_SIZE
RESPONSE_SIZE = RESPONSE.size + MACS_SIZE
COOKIE_REPLY_SIZE = COOKIE_REPLY.size
SHORTEST_TRANSPORT = 32
"""Bytes of a message without a packet; `threepipe.core.transport` makes and opens them."""

_SIZES = {TYPE_INITIATION: INITIATION_SIZE, TYPE_RESPONSE: RESPONSE_SIZE, TYPE_COOKIE_REPLY: COOKIE_REPLY_SIZE}


def kind_of(datagram: memoryview) -> int:
    """The type of a message, 0 for what is none: of an unknown type, with reserved bits set, or of a wrong length."""
    kind = int.from_bytes(datagram[:4], "little")
    if kind == TYPE_TRANSPORT:
        return kind if len(datagram) >= SHORTEST_TRANSPORT else 0
    return kind if _SIZES.get(kind) == len(datagram) else 0
