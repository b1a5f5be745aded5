"""The packet ring of Wintun, in one shareable buffer: one writer, one reader, no locks.

Layout (driver/wintun.c, TUN_RING), in the machine's byte order::

    0   u32  head        byte offset of the oldest record: moved by the reader
    4   u32  tail        byte offset behind the newest record: moved by the writer
    8   i32  alertable   1 while the reader wants to be woken: see `RingReader.arm`
    12  data             `capacity` bytes, and 64 KiB more that a last record may run into

A record is a u32 size and the packet, padded to 4 bytes. A record never wraps: one that starts
before the end of the capacity runs past it, and only offsets wrap. The ring is empty if head == tail,
so capacity - 4 bytes can be used. A full ring refuses the newest packet. Head or tail 0xFFFFFFFF says
that the reader or the writer has ended.

Ordering. The writer fills a record before it stores tail, the reader copies it before it stores
head; each store is one aligned 32-bit store. To sleep, the reader stores alertable and looks at tail
again; the writer stores tail and looks at alertable: each needs a full barrier between the two, or
both can miss the other (Wintun had that fault until ec0a6b9). Python has no barriers; taking a
lock is one on x86-64 and nearly one elsewhere, so a reader in another process should wait with a
time-out. This file waits for nothing, wakes nothing and knows no threads or processes: `notify` is
the caller's. `threepipe.claims` adds the packet-by-packet calls of Wintun's library.
"""

import threading
from collections.abc import Callable, Iterable

from threepipe.core.packet import MAX_PACKET, Packet
from threepipe.errors import InvalidSetting, RingCorrupt, RingEnded
from threepipe.settings import MAX_CAPACITY, MIN_CAPACITY, check_capacity

__all__ = [
    "MAX_CAPACITY",
    "MIN_CAPACITY",
    "RingEnd",
    "RingReader",
    "RingWriter",
    "check_capacity",
    "check_size",
    "record_length",
    "ring_size",
]

HEAD, TAIL, ALERTABLE = 0, 1, 2  # Indices of 32-bit words.
DATA = 12
RECORD_HEADER = 4
_TRAILING = 0x10000
_ENDED = 0xFFFFFFFF


def ring_size(capacity: int) -> int:
    """Return the bytes of a buffer for a ring of `capacity`: 12 of header, the data, 64 KiB behind it."""
    return DATA + check_capacity(capacity) + _TRAILING


def record_length(size: int) -> int:
    """Return the bytes that a packet of `size` bytes takes in a ring."""
    return (RECORD_HEADER + size + 3) & ~3


def check_size(size: int) -> int:
    """Return `size`. Raise ValueError if a record cannot hold a packet of that many bytes."""
    if not 0 <= size <= MAX_PACKET:
        raise ValueError(f"a packet of {size} bytes; a record holds at most {MAX_PACKET}")
    return size


class RingEnd:
    """The part that both ends share: the views of the buffer and the arithmetic of offsets."""

    def __init__(self, buffer: bytearray | memoryview, capacity: int) -> None:
        if len(buffer) < (size := ring_size(capacity)):
            raise InvalidSetting(f"a ring of capacity {capacity} needs a buffer of {size} bytes, not {len(buffer)}")
        self.capacity = capacity
        self._bytes = memoryview(buffer).cast("B")[:size]
        self._words = self._bytes.cast("I")
        self._barrier = threading.Lock()

    def _offset_word(self, word: int) -> int:
        """Return head or tail as the other side stored it. Raise `RingCorrupt` if it lies outside of the ring."""
        offset: int = self._words[word]
        if offset != _ENDED and (offset >= self.capacity or offset & 3):
            raise RingCorrupt(f"offset {offset:#x} lies outside of a ring of {self.capacity} bytes")
        return offset

    def _start(self, word: int) -> int:
        """Return the offset at which an earlier user of this end stopped. Raise `RingEnded` if it ended the stream."""
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

    def view(self, start: int, size: int) -> memoryview:
        """Return a view of `size` bytes of the buffer."""
        return self._bytes[start : start + size]

    def close(self) -> None:
        """Release the buffer, as shared memory demands before it is closed."""
        self._words.release()
        self._bytes.release()


class RingReader(RingEnd):
    """The consuming end."""

    def __init__(self, buffer: bytearray | memoryview, capacity: int) -> None:
        """Read from a ring in `buffer` (`ring_size(capacity)` bytes, zero for an empty ring)."""
        super().__init__(buffer, capacity)
        self._next = self._start(HEAD)

    def read(self, target: memoryview, limit: int) -> list[int]:
        """Copy up to `limit` packets end to end into `target`, release them, return their sizes in bytes.

        Stops before a packet that does not fit. Raises `RingEnded` when the writer has ended, and `RingCorrupt` for an
        invalid record, once the packets before it were delivered. Either is final.
        """
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
            start = DATA + offset + RECORD_HEADER
            target[used : used + size] = data[start : start + size]
            sizes.append(size)
            used += size
            length = record_length(size)
            offset = (offset + length) & mask
            content -= length
        self._next = offset
        self._move(HEAD, offset)
        return sizes

    def _content(self) -> int:
        """Return the bytes of the records that wait."""
        tail = self._offset_word(TAIL)
        if tail == _ENDED:
            raise RingEnded("the writer has ended the stream")
        return (tail - self._next) & (self.capacity - 1)

    def _record_size(self, offset: int, content: int) -> int:
        """Return the bytes of the packet at `offset`, checked against the bytes that the ring holds."""
        size: int = self._words[(DATA + offset) >> 2]
        if size > MAX_PACKET or record_length(size) > content:
            raise RingCorrupt(f"a record of {size} bytes where the ring holds {content}")
        return size

    def arm(self) -> bool:
        """Ask to be notified of the next packet. Return False if one has come meanwhile: then read again."""
        self._words[ALERTABLE] = 1
        self._fence()
        return bool(self._words[TAIL] == self._next)

    def disarm(self) -> None:
        """Take back `arm`, which saves the writer the call."""
        self._words[ALERTABLE] = 0

    def end(self) -> None:
        """Stop receiving: the writer's next packet raises `RingEnded`."""
        self._words[HEAD] = _ENDED


class RingWriter(RingEnd):
    """The producing end."""

    def __init__(self, buffer: bytearray | memoryview, capacity: int, notify: Callable[[], object]) -> None:
        """Write to a ring in `buffer`. The writer calls `notify()` when an armed reader should look."""
        super().__init__(buffer, capacity)
        self._notify = notify
        self._next = self._start(TAIL)

    def write(self, packets: Iterable[Packet]) -> int:
        """Copy packets in, publish them together and return how many fitted; a full ring refuses the last ones.

        Raises ValueError for a packet of more than 65535 bytes, `RingEnded` when the reader has ended, and
        `RingCorrupt` if its head is invalid.
        """
        words, data, mask = self._words, self._bytes, self.capacity - 1
        space, tail, count = self._space(), self._next, 0
        for packet in packets:
            size = check_size(len(packet))
            length = record_length(size)
            if length > space:
                break
            start = DATA + tail
            words[start >> 2] = size
            data[start + RECORD_HEADER : start + RECORD_HEADER + size] = packet
            tail = (tail + length) & mask
            space -= length
            count += 1
        if count:
            self._next = tail
            self._publish(tail)
        return count

    def end(self) -> None:
        """End the stream: the reader gets `RingEnded` at once, as when a Wintun adapter is removed."""
        self._publish(_ENDED)

    def _space(self) -> int:
        """Return how many bytes can be written, including the 4 of a record's header."""
        head = self._offset_word(HEAD)
        if head == _ENDED:
            raise RingEnded("the reader has ended")
        return (head - self._next - RECORD_HEADER) & (self.capacity - 1)

    def _publish(self, tail: int) -> None:
        self._move(TAIL, tail)
        self._fence()
        if self._words[ALERTABLE]:
            self._notify()
