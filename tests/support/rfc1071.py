"""The Internet checksum in the plainest way, for tests to compare with."""

import struct


def naive_checksum(data: bytes, initial: int = 0) -> int:
    """RFC 1071: add 16-bit words, the carry back in at the other end, and complement."""
    total = initial
    for (word,) in struct.iter_unpack("!H", data + bytes(len(data) % 2)):
        total += word
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
