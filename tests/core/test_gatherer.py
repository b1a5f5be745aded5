"""Packets that a program writes one by one, gathered to be sent together, by both implementations."""

import threading
from typing import Any

import pytest

from tests.support.frames import TCP4, UDP6, frame
from threepipe.core import fast
from threepipe.core.gatherer import Gatherer

BOTH = [Gatherer] if fast.Gatherer is Gatherer else [Gatherer, fast.Gatherer]
PACKETS = [frame(TCP4, b"abc"), frame(UDP6, b"defgh")]
FRONT = b"\0\0\x86\xdd"

pytestmark = pytest.mark.parametrize("kind", BOTH)


@pytest.mark.parametrize("front", [b"", FRONT])
def test_packets_are_taken_as_they_were_added_and_once(kind: Any, front: bytes) -> None:
    gatherer = kind(len(front))
    totals = [gatherer.add(front + packet) for packet in PACKETS]
    assert totals == [len(PACKETS[0]), sum(map(len, PACKETS))]
    assert list(map(bytes, gatherer.take())) == PACKETS
    assert gatherer.take() == []
    assert gatherer.add(front + PACKETS[1]) == len(PACKETS[1])


@pytest.mark.parametrize("front", [b"", FRONT])
def test_data_that_is_not_a_packet_is_not_kept(kind: Any, front: bytes) -> None:
    gatherer = kind(len(front))
    gatherer.add(front + PACKETS[0])
    for data in (b"", b"\x45", b"\x60" + bytes(20), bytes(40), b"\x45" + bytes(0xFFFF)):
        assert gatherer.add(front + data) == 0
    assert gatherer.add(front[:-1]) == 0
    assert list(map(bytes, gatherer.take())) == PACKETS[:1]


@pytest.mark.parametrize("of", [bytearray, lambda data: memoryview(bytearray(data))])
def test_memory_that_changes_later_is_copied(kind: Any, of: Any) -> None:
    gatherer, data = kind(0), of(PACKETS[0])
    gatherer.add(data)
    data[:] = bytes(len(data))
    assert list(map(bytes, gatherer.take())) == PACKETS[:1]


def test_threads_that_add_and_take_lose_no_packet(kind: Any) -> None:
    gatherer, taken = kind(0), list[memoryview]()

    def add() -> None:
        for _ in range(2000):
            gatherer.add(PACKETS[0])

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken += gatherer.take()
    assert len(taken + gatherer.take()) == 6000
