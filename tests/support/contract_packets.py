"""Packets, sizes and Windows' error numbers for tests of the contract library."""

import os

from tests.support.contract_dll.library import Contract, Kind

GIVEN = os.environ.get("THREEPIPE_CONTRACT", "")

CAPACITY = 0x20000
USABLE = CAPACITY - 4
"""A full ring has its tail 4 bytes before its head."""

HEADER = 4
ENDED = 0xFFFFFFFF

INVALID_HANDLE, INVALID_DATA, EOF, INVALID_PARAMETER = 6, 13, 38, 87
OVERFLOW, EXISTS, NO_MORE_ITEMS, NOT_FOUND, BUSY, IN_USE = 111, 183, 259, 1168, 1247, 0xE000023D
FILE_NOT_FOUND, ADDRESS_IN_USE = 2, 10048

VIOLATIONS = {"use_after_end", "end_inside_call", "use_after_close", "wrong_release", "wrong_send", "oversized_packet"}


def packet(size: int = 28, number: int = 0) -> bytes:
    """Return the start of an IPv4 packet with a number, of `size` bytes."""
    return (b"\x45\0\0\0" + number.to_bytes(4, "big")).ljust(size, b"\x5a")


def number(data: bytes) -> int:
    return int.from_bytes(data[4:8], "big")


def record_length(size: int) -> int:
    return (HEADER + size + 3) & ~3


def names(contract: Contract) -> dict[str, Kind]:
    return {interface.name: Kind(interface.kind) for interface in contract.interfaces()}


def until_one_sleeps(contract: Contract) -> None:
    while not contract.counters().get("sleepers"):
        pass
