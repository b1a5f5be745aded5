"""The memory of large results of the native core, which is used again, but never under a holder."""

import ctypes
import random
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

from tests.support.cores import NATIVE
from tests.support.frames import TCP4, frame, naive_merge
from threepipe.core.coalesce import coalesce
from threepipe.core.superpacket import split

SEGMENT = 1448
LONGEST = 0xFFFF - 40
RESULTS = 12
"""More results than the native core keeps bytearrays."""


@cache
def whole(seed: int) -> bytes:
    """Return a record of 64 KiB, with other bytes for every seed."""
    packet = frame(TCP4, random.Random(seed).randbytes(LONGEST))
    record = bytearray(naive_merge(TCP4, [packet]))
    record[4:6] = struct.pack("=H", SEGMENT)
    return bytes(record)


def superpackets(seed: int, count: int = 2) -> list[memoryview]:
    return [memoryview(bytearray(whole(seed))) for _ in range(count)]


def held_views(packets: list[memoryview]) -> Callable[[], bytes]:
    return lambda: b"".join(packets)


def held_slices(packets: list[memoryview]) -> Callable[[], bytes]:
    """Hold slices alone: the views themselves are released."""
    slices = [packet[:] for packet in packets]
    for packet in packets:
        packet.release()
    return lambda: b"".join(slices)


def held_last_packet(packets: list[memoryview]) -> Callable[[], bytes]:
    last = packets[-1]
    for packet in packets[:-1]:
        packet.release()
    return lambda: bytes(last)


def held_object(packets: list[memoryview]) -> Callable[[], bytes]:
    """Hold the object below the views."""
    below, size = packets[0].obj, sum(map(len, packets))
    for packet in packets:
        packet.release()
    return lambda: bytes(below)[:size]


def held_buffer(packets: list[memoryview]) -> Callable[[], bytes]:
    """Hold the memory of one packet by an object of another library."""
    array = (ctypes.c_char * len(packets[3])).from_buffer(packets[3])
    packets.clear()
    return lambda: bytes(array)


HOLDERS = [held_views, held_slices, held_last_packet, held_object, held_buffer]


@pytest.mark.parametrize("hold", HOLDERS)
def test_results_that_are_held_stay_unchanged(hold: Callable[[list[memoryview]], Callable[[], bytes]]) -> None:
    held = []
    for seed in range(RESULTS):
        look = hold(NATIVE.split(superpackets(seed)))
        held.append((look, look()))
        NATIVE.coalesce(NATIVE.split(superpackets(seed + RESULTS)), False, True)

    assert all(look() == before for look, before in held)


def test_results_are_the_same_in_memory_that_was_used_before() -> None:
    for seed in range(RESULTS):
        records = superpackets(seed, 1 + seed % 3)
        packets = NATIVE.split(records)
        assert list(map(bytes, packets)) == list(map(bytes, split(superpackets(seed, 1 + seed % 3))))
        merged = NATIVE.coalesce(packets, False, True)
        assert list(map(bytes, merged)) == list(map(bytes, coalesce(packets, False, True)))


def test_memory_of_a_released_result_is_used_again() -> None:
    def results() -> Iterator[int]:
        for seed in range(RESULTS):
            packets = NATIVE.split(superpackets(seed))
            yield id(packets[0].obj)
            for packet in packets:
                packet.release()

    assert len(set(results())) == 1


def test_memory_is_used_again_while_older_results_are_held() -> None:
    held = [NATIVE.split(superpackets(seed)) for seed in range(RESULTS)]

    places = {id(NATIVE.split(superpackets(seed))[0].obj) for seed in range(RESULTS)}

    assert len(places) == 1
    assert places.isdisjoint(id(packets[0].obj) for packets in held)


def test_an_emptied_bytearray_is_not_used_again() -> None:
    packets = NATIVE.split(superpackets(1))
    below = packets[0].obj
    assert isinstance(below, bytearray)
    for packet in packets:
        packet.release()
    below.clear()
    del below

    assert b"".join(NATIVE.split(superpackets(2))) == b"".join(split(superpackets(2)))


def test_threads_get_memory_of_their_own() -> None:
    expected = {seed: b"".join(split(superpackets(seed))) for seed in range(4)}

    def work(seed: int) -> bool:
        return all(b"".join(NATIVE.split(superpackets(seed))) == expected[seed] for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
