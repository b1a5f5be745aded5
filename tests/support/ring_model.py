"""A ring with both ends on one buffer, and a model of it for random operations."""

import random
import struct
from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import settings

from threepipe.claims import ClaimingReader, ClaimingWriter, RingPacket
from threepipe.core.packet import MAX_PACKET
from threepipe.ring import MIN_CAPACITY, ring_size

PROPERTY = settings(derandomize=True, deadline=None, max_examples=300)
ENDED = 0xFFFFFFFF
HEADER = struct.Struct("=IIi")


class Ring:
    """A ring with both ends on one buffer, and the words of its header."""

    def __init__(self, capacity: int = MIN_CAPACITY) -> None:
        self.capacity = capacity
        self.buffer = bytearray(ring_size(capacity))
        self.notices = 0
        self.reader = ClaimingReader(self.buffer, capacity)
        self.writer = ClaimingWriter(self.buffer, capacity, self._notify)

    def _notify(self) -> None:
        self.notices += 1

    @property
    def words(self) -> tuple[int, int, int]:
        """Return head, tail and alertable."""
        return HEADER.unpack_from(self.buffer)

    def poke(self, offset: int, word: int) -> None:
        """Write a 32-bit word as a faulty other side would."""
        struct.pack_into("=I", self.buffer, offset, word)

    def move_to(self, offset: int) -> None:
        """Write and read records, of 65540 bytes at most, until head and tail are `offset`."""
        while rest := offset - self.words[1]:
            assert self.writer.write([bytes(min(rest, 0x10000) - 4)]) == 1
            self.read_all()

    def read_all(self) -> list[bytes]:
        packets: list[bytes] = []
        target = memoryview(bytearray(0x20000))
        while sizes := self.reader.read(target, 1000):
            start = 0
            for size in sizes:
                packets.append(bytes(target[start : start + size]))
                start += size
        return packets


def allocate(ring: Ring, *contents: bytes) -> list[RingPacket]:
    packets = []
    for content in contents:
        packet = ring.writer.allocate(len(content))
        assert packet is not None
        packet.data[:] = content
        packets.append(packet)
    return packets


def receive(ring: Ring, count: int) -> list[RingPacket]:
    packets = [ring.reader.receive() for _ in range(count)]
    return [packet for packet in packets if packet is not None]


@dataclass(slots=True)
class Record:
    """A packet in the model: its place in an endless stream of bytes, and its state."""

    data: bytes
    start: int
    packet: RingPacket | None = None
    settled: bool = False

    @property
    def end(self) -> int:
        return self.start + 4 + len(self.data) + -len(self.data) % 4


@dataclass
class Model:
    """The naive ring: queues of packets, and offsets that never wrap."""

    rng: random.Random
    ring: Ring = field(default_factory=Ring)
    unsent: deque[Record] = field(default_factory=deque)
    waiting: deque[Record] = field(default_factory=deque)
    held: deque[Record] = field(default_factory=deque)
    head: int = 0
    tail: int = 0
    next_start: int = 0
    armed: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.pool = memoryview(self.rng.randbytes(0x20000))
        self.target = memoryview(bytearray(0x20000))

    def fresh(self) -> bytes:
        """Return random bytes: mostly few, sometimes as many as possible."""
        choice = self.rng.random()
        size = int(self.rng.random() * (80 if choice < 0.8 else 1500 if choice < 0.99 else MAX_PACKET + 1))
        start = int(self.rng.random() * MAX_PACKET)
        return bytes(self.pool[start : start + size])

    def place(self, data: bytes) -> Record | None:
        """Return the record for `data` after all others, or None if there is no room by the rule."""
        record = Record(data, self.next_start)
        if record.end - self.head > MIN_CAPACITY - 4:
            self.counts["full"] += 1
            return None
        self.counts["past the end"] += record.start % MIN_CAPACITY + len(data) + 4 > MIN_CAPACITY
        self.next_start = record.end
        return record

    def allocate(self) -> None:
        data = self.fresh()
        record = self.place(data)
        packet = self.ring.writer.allocate(len(data))
        if record is None:
            assert packet is None
            return
        assert packet is not None
        assert (packet.offset, len(packet.data)) == (record.start % MIN_CAPACITY, len(data))
        packet.data[:] = data
        record.packet = packet
        self.unsent.append(record)

    def settle(self, queue: deque[Record]) -> RingPacket | None:
        """Choose a packet that is held, most often an old one, and mark it as returned."""
        if not queue:
            return None
        record = queue[int(self.rng.random() ** 6 * len(queue))]
        if record.settled or record.packet is None:
            return None
        record.settled = True
        self.counts["out of order"] += record is not queue[0]
        return record.packet

    def send(self) -> None:
        before = self.tail, self.ring.notices
        if packet := self.settle(self.unsent):
            self.ring.writer.send(packet)
        while self.unsent and self.unsent[0].settled:
            record = self.unsent.popleft()
            record.settled, record.packet = False, None
            self.waiting.append(record)
            self.tail = record.end
        self.check_notice(*before)

    def write(self) -> None:
        packets = [self.fresh() for _ in range(int(self.rng.random() * 12))]
        if self.unsent:
            with pytest.raises(ValueError, match="unsent"):
                self.ring.writer.write(packets)
            return
        before = self.tail, self.ring.notices
        accepted = 0
        for data in packets:
            if (record := self.place(data)) is None:
                break
            self.waiting.append(record)
            self.tail = record.end
            accepted += 1
        assert self.ring.writer.write(packets) == accepted
        self.counts["written"] += accepted
        self.check_notice(*before)

    def receive(self) -> None:
        packet = self.ring.reader.receive()
        if not self.waiting:
            assert packet is None
            self.counts["empty"] += 1
            return
        record = self.waiting.popleft()
        assert packet is not None
        assert packet.offset == record.start % MIN_CAPACITY
        assert packet.data == record.data
        record.packet = packet
        self.held.append(record)

    def release(self) -> None:
        if packet := self.settle(self.held):
            self.ring.reader.release(packet)
        while self.held and self.held[0].settled:
            self.head = self.held.popleft().end

    def read(self) -> None:
        limit = int(self.rng.random() * 80)
        target = self.target[: int(self.rng.random() * len(self.target))]
        if self.held:
            with pytest.raises(ValueError, match="held"):
                self.ring.reader.read(target, limit)
            return
        expected: list[bytes] = []
        room = len(target)
        while self.waiting and len(expected) < limit and (room := room - len(self.waiting[0].data)) >= 0:
            record = self.waiting.popleft()
            expected.append(record.data)
            self.head = record.end
        assert self.ring.reader.read(target, limit) == [len(data) for data in expected]
        content = b"".join(expected)
        assert bytes(target[: len(content)]) == content
        self.counts["read"] += len(expected)

    def arm(self) -> None:
        assert self.ring.reader.arm() == (not self.waiting)
        self.armed = True

    def disarm(self) -> None:
        self.ring.reader.disarm()
        self.armed = False

    def check_notice(self, tail: int, notices: int) -> None:
        """Check that an armed reader was notified of every move of the tail, and any other of none."""
        if not self.armed:
            assert self.ring.notices == notices
        elif self.tail != tail:
            assert self.ring.notices == notices + 1
            self.counts["notice"] += 1

    def check(self) -> None:
        assert self.ring.words == (self.head % MIN_CAPACITY, self.tail % MIN_CAPACITY, self.armed)


# How often allocate, send, write, receive, release, read, arm and disarm are chosen: a phase that
# fills the ring, one that empties it, and one for the operations in bulk.
PHASES = [(30, 30, 4, 15, 15, 3, 1, 1), (15, 20, 2, 30, 40, 4, 1, 1), (1, 8, 16, 1, 8, 24, 1, 1)]


def exercise(rng: random.Random, operations: int) -> None:
    """Do random `operations` (a multiple of 500) on a ring and on the model, and compare them after each."""
    model = Model(rng)
    choices = [model.allocate, model.send, model.write, model.receive, model.release, model.read, model.arm]
    for _ in range(operations // 500):
        for operation in model.rng.choices([*choices, model.disarm], model.rng.choice(PHASES), k=500):
            operation()
            model.check()
    # The test is worth something only if the ring was often full, empty and past its end.
    events = [model.counts[key] for key in ("full", "empty", "past the end", "out of order", "notice")]
    assert min(events) > operations // 2000
    assert min(model.counts["written"], model.counts["read"]) > operations // 20
    while model.unsent or model.waiting or model.held:
        model.send()
        model.release()
        model.read() if not model.held else None
    model.check()
    assert model.head == model.tail == model.next_start
