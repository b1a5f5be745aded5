"""Numbered packets and the bounds of statistics, for tests of impairments."""

import math

from threepipe.core.packet import Packet

MANY = 20_000


def packet(number: int, size: int = 100) -> bytes:
    return (b"\x45" + bytes(15) + number.to_bytes(4, "big")).ljust(size, b".")


def number_of(data: Packet) -> int:
    return int.from_bytes(data[16:20], "big")


def within_bounds(happened: int, of: int, probability: float) -> bool:
    """Return True within 4.5 standard deviations of the binomial distribution: 999,993 of a million fair counts are."""
    return abs(happened - of * probability) <= 4.5 * math.sqrt(of * probability * (1 - probability))
