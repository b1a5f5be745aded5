"""The Internet checksum in the plainest way, for comparison."""

import struct


def naive_checksum(data: bytes, initial: int = 0) -> int:
    """Return the checksum of RFC 1071: the sum of 16-bit words with end-around carry, complemented."""
    total = initial
    for (word,) in struct.iter_unpack("!H", data + bytes(len(data) % 2)):
        total += word
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
