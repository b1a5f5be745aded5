"""Packets that the suite recognizes as its own, and the steps that most checks share."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["NOISE", "SECONDS", "collect", "ours", "packet", "packets", "raises"]

Error = TypeVar("Error", bound=Exception)

SECONDS = 10.0
"""Longer than any step takes. Only a failing check waits that long."""
NOISE = 20
"""Packets that the system may send by itself during a check."""

_PROTOCOL = 253  # For experiments (RFC 3692).


def packet(number: int, size: int = 100, version: int = 4) -> bytes:
    """Return a packet of `size` bytes that contains its `number` (below 2**32) and that no system answers."""
    body = number.to_bytes(4, "big")
    if version == 4:
        header = bytes((0x45, 0)) + size.to_bytes(2, "big") + bytes((0, 0, 0, 0, 64, _PROTOCOL, 0, 0))
        head = header + bytes((192, 0, 2, 1, 192, 0, 2, 2))
    else:
        header = bytes((0x60, 0, 0, 0)) + (size - 40).to_bytes(2, "big") + bytes((_PROTOCOL, 64))
        head = header + bytes.fromhex("20010db8000000000000000000000001 20010db8000000000000000000000002")
    return (head + body).ljust(size, b"~")[:size]


def packets(count: int, size: int = 100) -> list[bytes]:
    """Return `count` packets of `size` bytes, numbered from 0."""
    return [packet(number, size) for number in range(count)]


def ours(packets: Iterable[bytes | memoryview]) -> list[bytes]:
    """Return those packets that are of the suite. A system sends others by itself, such as router solicitations."""
    return [bytes(p) for p in packets if p[9 if p[0] >> 4 == 4 else 6] == _PROTOCOL]


def collect(receive: Callable[[float], Iterable[bytes | memoryview]], count: int) -> list[bytes]:
    """Receive until there are `count` packets of the suite, or `SECONDS` have passed."""
    found: list[bytes] = []
    deadline = time.monotonic() + SECONDS
    while len(found) < count and (left := deadline - time.monotonic()) > 0:
        found += ours(receive(left))
    return found


def raises(kind: type[Error], promise: str, action: Callable[..., object], *arguments: object) -> Error:
    """Return the exception of `kind` that the call raises. Raises AssertionError with the `promise` if it does not."""
    try:
        action(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{promise}: {kind.__name__} was not raised")
