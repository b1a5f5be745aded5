"""The layouts of the protocol's four messages (paper, section 5.4). All numbers are little-endian. No cryptography."""

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
    "index_of",
    "type_of",
]

TYPE_INITIATION, TYPE_RESPONSE, TYPE_COOKIE_REPLY, TYPE_TRANSPORT = 1, 2, 3, 4

INITIATION = struct.Struct("<II32s48s28s")
"""Type, sender's index, ephemeral public key, sealed static public key, sealed timestamp; the two MACs follow."""
RESPONSE = struct.Struct("<III32s16s")
"""Type, sender's index, receiver's index, ephemeral public key, sealed empty string; the two MACs follow."""
COOKIE_REPLY = struct.Struct("<II24s32s")
"""Type, receiver's index, nonce, sealed cookie."""
MACS_SIZE = 32
INITIATION_SIZE = INITIATION.size + MACS_SIZE
RESPONSE_SIZE = RESPONSE.size + MACS_SIZE
COOKIE_REPLY_SIZE = COOKIE_REPLY.size
SHORTEST_TRANSPORT = 32
"""Bytes of a transport message without a packet; `threepipe.core.transport` seals and opens them."""

_SIZES = {TYPE_INITIATION: INITIATION_SIZE, TYPE_RESPONSE: RESPONSE_SIZE, TYPE_COOKIE_REPLY: COOKIE_REPLY_SIZE}


def type_of(datagram: memoryview) -> int:
    """Return the type of a message; 0 if its type is unknown, its reserved bits are set, or its length is wrong."""
    kind = int.from_bytes(datagram[:4], "little")
    if kind == TYPE_TRANSPORT:
        return kind if len(datagram) >= SHORTEST_TRANSPORT else 0
    return kind if _SIZES.get(kind) == len(datagram) else 0


def index_of(message: memoryview) -> int:
    """Return the index after the type: the sender's in an initiation or response, the receiver's in all others."""
    return int.from_bytes(message[4:8], "little")
