"""Checksums of the native core against the reference."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cores import of_both, property_of
from tests.support.rfc1071 import naive_checksum
from threepipe.core.packet import Packet


def checksum_of_both(data: Packet, initial: int = 0) -> int:
    checksum: int = of_both(lambda core: core.internet_checksum(data, initial))
    return checksum


@property_of(500)
@given(st.binary(max_size=200), st.integers(0, 0xFFFF) | st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_checksums_of_random_data_agree(data: bytes, initial: int, start: int) -> None:
    assert checksum_of_both(memoryview(data)[start:], initial) == naive_checksum(data[start:], initial)


@pytest.mark.parametrize("initial", [0, 1, 0xFFFF, 0x10000, 0xFFFF0000, 2**32 - 1, 2**63, 2**64 - 1, 2**64 - 2**16])
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x80\0", b"\xff\xfe\1"])
def test_checksums_of_every_length_up_to_150_agree(fill: bytes, initial: int) -> None:
    data = memoryview(fill * 150)
    for size in range(150):
        for part in (data[:size], data[1 : 1 + size]):
            assert checksum_of_both(part, initial) in range(0x10000)


@pytest.mark.parametrize("size", [1499, 1500, 9000, 65534, 65535, 1 << 20])
def test_checksums_of_long_data_agree(size: int) -> None:
    data = random.Random(size).randbytes(size)
    for buffer in (data, bytearray(data), memoryview(data), b"\xff" * size, bytes(size)):
        checksum_of_both(buffer)
