"""The packet ring of Wintun, in one shareable buffer: one writer, one reader, no locks.

Layout (driver/wintun.c, TUN_RING), in the machine's byte order::

    0   u32  head        byte offset of the oldest record: moved by the reader
    4   u32  tail        byte offset behind the newest record: moved by the writer
    8   i32  alertable   1 while the reader wants to be woken: see `RingReader.arm`
    12  data             `capacity` bytes, and 64 KiB more that a last record may run into

A record is a u32 size and the packet, padded to 4 bytes. A record never wraps: one that starts
before the end of the capacity runs past it, and only offsets wrap. Empty is head == tail, so
capacity - 4 bytes can be used. A full ring refuses the newest packet. Head or tail 0xFFFFFFFF says
that the reader or the writer has ended.

Ordering. The writer fills a record before it stores tail, the reader copies it before it stores
head; each store is one aligned 32-bit store. To sleep, the reader stores alertable and looks at tail
again; the writer stores tail and looks at alertable: each needs a full barrier between the two, or
both can miss the other (Wintun had that fault until ec0a6b9). Python has no barriers; taking a
lock is one on x86-64 and nearly one elsewhere, so a reader in another process does well to wait
with a time-out. This file waits for nothing, wakes nobody and knows no threads or processes:
`notify` is the caller's.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from threepipe.core.packet import MAX_PACKET, Packet
from threepipe.errors import InvalidSetting, RingCorrupt, RingEnded
from threepipe.settings import MAX_CAPACITY, MIN_CAPACITY, check_capacity

__all__ = [
    "MAX_CAPACITY",
    "MIN_CAPACITY",
    "RingPacket",
    "RingReader",
    "RingWriter",
    "check_capacity",
    "record_length",
    "ring_size",
]

_HEAD, _TAIL, _ALERTABLE = 0, 1, 2  # As indices of 32-bit words.
_DATA = 12
_RECORD_HEADER = 4
_TRAILING = 0x10000
_ENDED = 0xFFFFFFFF


def ring_size(capacity: int) -> int:
    """Bytes of the buffer for a ring of `capacity`: 12 of header, the data, 64 KiB behind it."""
    return _DATA + check_capacity(capacity) + _TRAILING


def record_length(size: int) -> int:
    """Bytes that a packet of `size` bytes takes in a ring."""
    return (_RECORD_HEADER + size + 3) & ~3


def _check_size(size: int) -> int:
    if not 0 <= size <= MAX_PACKET:
        raise ValueError(f"a packet of {size} bytes; a record holds at most {MAX_PACKET}")
    return size


class RingPacket(NamedTuple):
    """A packet in the ring: `data` is a view of its bytes there, good until released or sent."""

    offset: int
    data: memoryview


class _Claims:
    """Offsets that are handed out in order, come back in any order, and count in order again.

    Wintun's DLL marks bit 31 of the record for this; kept here, the other side cannot touch it.
    """

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._open: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._order)

    def add(self, offset: int) -> None:
        self._order.append(offset)
        self._open.add(offset)

    def settle(self, packet: RingPacket, end: int) -> int:
        """Take `packet` back; the offset of the oldest one still out, or `end` where none is."""
        if packet.offset not in self._open:
            raise ValueError("this packet was given back before, or is not of this ring")
        packet.data.release()  # First, for it raises BufferError while somebody exports the memory.
        self._open.remove(packet.offset)
        while self._order and self._order[0] not in self._open:
            self._order.popleft()
        return self._order[0] if self._order else end


class _Ring:
    """What both ends share: the views of the buffer and the arithmetic of offsets."""

    def __init__(self, buffer: bytearray | memoryview, capacity: int) -> None:
        if len(buffer) < (size := ring_size(capacity)):
            raise InvalidSetting(f"a ring of capacity {capacity} needs a buffer of {size} bytes, not {len(buffer)}")
        self.capacity = capacity
        self._bytes = memoryview(buffer).cast("B")[:size]
        self._words = self._bytes.cast("I")
        self._claims = _Claims()
        self._barrier = threading.Lock()

    def _offset_word(self, word: int) -> int:
        """Head or tail as the other side stored it; raises `RingCorrupt` outside of the ring."""
        offset: int = self._words[word]
        if offset != _ENDED and (offset >= self.capacity or offset & 3):
            raise RingCorrupt(f"offset {offset:#x} lies outside of a ring of {self.capacity} bytes")
        return offset

    def _packet(self, offset: int, size: int) -> RingPacket:
        start = _DATA + offset + _RECORD_HEADER
        return RingPacket(offset, self._bytes[start : start + size])

    def _start(self, word: int) -> int:
        """Where an earlier user of this end left off; raises `RingEnded` where he ended."""
        if (offset := self._offset_word(word)) == _ENDED:
            raise RingEnded("this end of the ring was ended")
        return offset

    def _move(self, word: int, offset: int) -> None:
        """Publish head or tail, unless this end was ended."""
        if self._words[word] != _ENDED:
            self._words[word] = offset

    def _fence(self) -> None:
        with self._barrier:
            pass

    def close(self) -> None:
        """Let go of the buffer, which shared memory wants before it is closed."""
        self._words.release()
        self._bytes.release()


class RingReader(_Ring):
    """The consuming end. Packets may be released in any order; memory comes free in ring order."""

    def __init__(self, buffer: bytearray | memoryview, capacity: int) -> None:
        """Read from a ring in `buffer` (`ring_size(capacity)` bytes, zero for an empty ring)."""
        super().__init__(buffer, capacity)
        self._next = self._start(_HEAD)

    def receive(self) -> RingPacket | None:
        """The next packet, to be released later, or None where there is none now.

        Raises `RingEnded` when the writer has ended and `RingCorrupt` when what it wrote cannot be;
        either is final.
        """
        offset, content = self._next, self._content()
        if not content:
            return None
        size = self._record_size(offset, content)
        self._next = (offset + record_length(size)) & (self.capacity - 1)
        self._claims.add(offset)
        return self._packet(offset, size)

    def release(self, packet: RingPacket) -> None:
        """Give a received packet's place back; the writer gets it once all older ones are back too."""
        self._move(_HEAD, self._claims.settle(packet, self._next))

    def read(self, target: memoryview, limit: int) -> list[int]:
        """Copy up to `limit` packets end to end into `target`, release them, return their sizes in bytes.

        Stops before a packet that does not fit. Raises as `receive` does, a corrupt record only when
        those before it were delivered. ValueError while packets of `receive` are held.
        """
        if self._claims:
            raise ValueError("packets of this ring are held; release them before reading in bulk")
        data, mask = self._bytes, self.capacity - 1
        content, offset, used = self._content(), self._next, 0
        sizes: list[int] = []
        while content and len(sizes) < limit:
            try:
                size = self._record_size(offset, content)
            except RingCorrupt:
                if sizes:
                    break
                raise
            if used + size > len(target):
                break
            start = _DATA + offset + _RECORD_HEADER
            target[used : used + size] = data[start : start + size]
            sizes.append(size)
            used += size
            length = record_length(size)
            offset = (offset + length) & mask
            content -= length
        self._next = offset
        self._move(_HEAD, offset)
        return sizes

    def _content(self) -> int:
        """Bytes of records that wait."""
        tail = self._offset_word(_TAIL)
        if tail == _ENDED:
            raise RingEnded("the writer has ended the stream")
        return (tail - self._next) & (self.capacity - 1)

    def _record_size(self, offset: int, content: int) -> int:
        """Bytes of the packet at `offset`, checked against what the ring holds."""
        size: int = self._words[(_DATA + offset) >> 2]
        if size > MAX_PACKET or record_length(size) > content:
            raise RingCorrupt(f"a record of {size} bytes where the ring holds {content}")
        return size

    def arm(self) -> bool:
        """Ask to be notified of the next packet; False where one came in between: read again then."""
        self._words[_ALERTABLE] = 1
        self._fence()
        return bool(self._words[_TAIL] == self._next)

    def disarm(self) -> None:
        """Ask no more to be notified: the writer saves itself the trouble."""
        self._words[_ALERTABLE] = 0

    def end(self) -> None:
        """Say that nothing will be received any more: the writer's next packet raises `RingEnded`."""
        self._words[_HEAD] = _ENDED


class RingWriter(_Ring):
    """The producing end. Packets go out in the order of their allocation."""

    def __init__(self, buffer: bytearray | memoryview, capacity: int, notify: Callable[[], object]) -> None:
        """Write to a ring in `buffer`; `notify()` is called when an armed reader should look."""
        super().__init__(buffer, capacity)
        self._notify = notify
        self._next = self._start(_TAIL)

    def allocate(self, size: int) -> RingPacket | None:
        """Room for a packet of `size` bytes, to be filled and then given to `send`; None where full.

        Raises ValueError for more than 65535 bytes, `RingEnded` when the reader ended, `RingCorrupt`
        when its head cannot be.
        """
        length = record_length(_check_size(size))
        if length > self._space():
            return None
        offset = self._next
        self._words[(_DATA + offset) >> 2] = size
        self._next = (offset + length) & (self.capacity - 1)
        self._claims.add(offset)
        return self._packet(offset, size)

    def send(self, packet: RingPacket) -> None:
        """Hand over an allocated packet; it becomes visible once all allocated before it are sent."""
        self._publish(self._claims.settle(packet, self._next))

    def write(self, packets: Iterable[Packet]) -> int:
        """Copy packets in, publish them at once, return how many fitted: the newest are refused.

        Raises as `allocate` does. ValueError while allocated packets are unsent: those come first.
        """
        if self._claims:
            raise ValueError("allocated packets of this ring are unsent; send them before writing in bulk")
        words, data, mask = self._words, self._bytes, self.capacity - 1
        space, tail, count = self._space(), self._next, 0
        for packet in packets:
            size = _check_size(len(packet))
            length = record_length(size)
            if length > space:
                break
            start = _DATA + tail
            words[start >> 2] = size
            data[start + _RECORD_HEADER : start + _RECORD_HEADER + size] = packet
            tail = (tail + length) & mask
            space -= length
            count += 1
        if count:
            self._next = tail
            self._publish(tail)
        return count

    def end(self) -> None:
        """End the stream: the reader gets `RingEnded`, at once, as when a Wintun adapter is removed."""
        self._publish(_ENDED)

    def _space(self) -> int:
        """Bytes that can be written, of which a record's header takes 4."""
        head = self._offset_word(_HEAD)
        if head == _ENDED:
            raise RingEnded("the reader has ended")
        return (head - self._next - _RECORD_HEADER) & (self.capacity - 1)

    def _publish(self, tail: int) -> None:
        self._move(_TAIL, tail)
        self._fence()
        if self._words[_ALERTABLE]:
            self._notify()
