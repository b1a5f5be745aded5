"""Rings between two threads, and between two processes over shared memory."""

import multiprocessing
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing.shared_memory import SharedMemory
from typing import Protocol

import pytest

from threepipe.claims import ClaimingReader, ClaimingWriter
from threepipe.ring import ring_size

CAPACITY = 0x80000
CHUNK = 512
TIMEOUT = 0.5  # Seconds: Python has no memory barriers, so a wake-up may be lost.
PATIENCE = 60  # Timeouts in a row after which the other side counts as dead.
PATTERN = bytes(range(251)) * 2


class Bell(Protocol):
    """A semaphore of threads or of processes."""

    def acquire(self, *, timeout: float) -> bool: ...
    def release(self) -> None: ...


class Channel:
    """One direction: a ring, a bell for packets and a bell for room."""

    def __init__(self, buffer: bytearray | memoryview, packets: Bell, room: Bell) -> None:
        self.reader = ClaimingReader(buffer, CAPACITY)
        self.writer = ClaimingWriter(buffer, CAPACITY, packets.release)
        self.packets = packets
        self.room = room
        self.target = memoryview(bytearray(CAPACITY))

    def write(self, packets: list[bytes]) -> None:
        """Write all of `packets`, and wait for room as often as necessary."""
        waits = 0
        while packets := packets[self.writer.write(packets) :]:
            waits += not self.room.acquire(timeout=TIMEOUT)
            assert waits < PATIENCE, "nobody reads"

    def read(self) -> list[bytes]:
        """Wait for packets and return some."""
        for _ in range(PATIENCE):
            if sizes := self.reader.read(self.target, CHUNK):
                self.reader.disarm()
                self.room.release()
                return split(self.target, sizes)
            if self.reader.arm():
                self.packets.acquire(timeout=TIMEOUT)
        raise AssertionError("nobody writes")

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


def split(memory: memoryview, sizes: list[int]) -> list[bytes]:
    packets, start = [], 0
    for size in sizes:
        packets.append(bytes(memory[start : start + size]))
        start += size
    return packets


def packet(sequence: int) -> bytes:
    """Return a packet with its number; its length and bytes follow from that."""
    return sequence.to_bytes(4, "big") + PATTERN[sequence % 251 : sequence % 251 + sequence % 191]


def expected(first: int, count: int) -> list[bytes]:
    return [packet(sequence) for sequence in range(first, first + count)]


def produce(channel: Channel, count: int) -> None:
    for first in range(0, count, CHUNK):
        channel.write(expected(first, min(CHUNK, count - first)))


def consume(channel: Channel, count: int) -> None:
    """Receive `count` packets and check that each is intact and in order."""
    received = 0
    while received < count:
        packets = channel.read()
        assert packets == expected(received, len(packets))
        received += len(packets)
    assert received == count


def echo(names: list[str], bells: list[Bell], count: int) -> None:
    """Check every packet and send it back; the other process runs this."""
    with (
        closing(SharedMemory(names[0])) as first,
        closing(SharedMemory(names[1])) as second,
        closing(share(first, bells[:2])) as there,
        closing(share(second, bells[2:])) as back,
    ):
        received = 0
        while received < count:
            packets = there.read()
            assert packets == expected(received, len(packets))
            back.write(packets)
            received += len(packets)


def share(memory: SharedMemory, bells: list[Bell]) -> Channel:
    assert memory.buf is not None
    return Channel(memory.buf, *bells)


@pytest.fixture(scope="module", autouse=True)
def tracker() -> None:
    """Start the resource tracker, which multiprocessing keeps for the process, before descriptors are counted."""
    if sys.platform != "win32":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()


@pytest.fixture
def memories() -> Iterator[list[SharedMemory]]:
    made = [SharedMemory(create=True, size=ring_size(CAPACITY)) for _ in range(2)]
    yield made
    for memory in made:
        memory.close()
        memory.unlink()


def test_two_threads_exchange_packets_intact() -> None:
    channel = Channel(bytearray(ring_size(CAPACITY)), threading.Semaphore(0), threading.Semaphore(0))
    with ThreadPoolExecutor() as pool:
        producer = pool.submit(produce, channel, 100_000)
        consume(channel, 100_000)
        producer.result(timeout=1)


@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_two_processes_exchange_packets_intact(memories: list[SharedMemory], count: int) -> None:
    context = multiprocessing.get_context("spawn")
    bells: list[Bell] = [context.Semaphore(0) for _ in range(4)]
    other = context.Process(target=echo, args=([memory.name for memory in memories], bells, count))
    other.start()
    try:
        with (
            closing(share(memories[0], bells[:2])) as there,
            closing(share(memories[1], bells[2:])) as back,
            ThreadPoolExecutor() as pool,
        ):
            producer = pool.submit(produce, there, count)
            consume(back, count)
            producer.result(timeout=1)
        other.join(timeout=10)
        assert other.exitcode == 0
    finally:
        other.kill()
        other.join()
        other.close()
