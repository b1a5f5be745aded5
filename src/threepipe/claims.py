"""The packet-by-packet calls of Wintun's library on a ring: packets are claimed in place and returned in any order.

WintunReceivePacket and WintunReleaseReceivePacket, WintunAllocateSendPacket and WintunSendPacket. A received packet's
memory comes free, and a sent packet becomes visible, once all older claims are returned too. Owns the order of the
claims; `ring` owns the layout.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from threepipe.core.packet import Packet
from threepipe.ring import DATA, HEAD, RECORD_HEADER, RingEnd, RingReader, RingWriter, check_size, record_length

__all__ = ["ClaimingReader", "ClaimingWriter", "RingPacket"]


class RingPacket(NamedTuple):
    """A packet in the ring: `data` is a view of its bytes there, valid until it is released or sent."""

    offset: int
    data: memoryview


class _Claims:
    """The claimed packets of a ring: claimed in order, returned in any order, settled in order again.

    Wintun's DLL marks bit 31 of the record for this; kept here, the other side cannot change it.
    """

    def __init__(self, ring: RingEnd) -> None:
        self._ring = ring
        self._order: deque[int] = deque()
        self._open: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._order)

    def add(self, offset: int, size: int) -> RingPacket:
        """Claim the packet of `size` bytes whose record is at `offset`."""
        self._order.append(offset)
        self._open.add(offset)
        start = DATA + offset + RECORD_HEADER
        return RingPacket(offset, self._ring.view(start, size))

    def settle(self, packet: RingPacket, end: int) -> int:
        """Settle the claim of `packet`. Return the offset of the oldest open claim, or `end` if none is open."""
        if packet.offset not in self._open:
            raise ValueError("this packet was returned before, or belongs to another ring")
        packet.data.release()  # First, as it raises BufferError while something exports the memory.
        self._open.remove(packet.offset)
        while self._order and self._order[0] not in self._open:
            self._order.popleft()
        return self._order[0] if self._order else end


class ClaimingReader(RingReader):
    """A reader whose packets may be released in any order; memory comes free in ring order."""

    def __init__(self, buffer: bytearray | memoryview, capacity: int) -> None:
        """Read from a ring in `buffer`, as `RingReader` does."""
        super().__init__(buffer, capacity)
        self._claims = _Claims(self)

    def receive(self) -> RingPacket | None:
        """Return the next packet, to be released later, or None if the ring is empty.

        Raises `RingEnded` when the writer has ended and `RingCorrupt` for an invalid record; either is final.
        """
        offset, content = self._next, self._content()
        if not content:
            return None
        size = self._record_size(offset, content)
        self._next = (offset + record_length(size)) & (self.capacity - 1)
        return self._claims.add(offset, size)

    def release(self, packet: RingPacket) -> None:
        """Release a received packet. The writer gets its memory once all older packets are released too."""
        self._move(HEAD, self._claims.settle(packet, self._next))

    def read(self, target: memoryview, limit: int) -> list[int]:
        """Copy packets as `RingReader` does. Raise ValueError while packets of `receive` are held."""
        if self._claims:
            raise ValueError("packets of this ring are held; release them before reading in bulk")
        return super().read(target, limit)


class ClaimingWriter(RingWriter):
    """A writer whose packets may be sent in any order; they become visible in the order of their allocation."""

    def __init__(self, buffer: bytearray | memoryview, capacity: int, notify: Callable[[], object]) -> None:
        """Write to a ring in `buffer`, as `RingWriter` does."""
        super().__init__(buffer, capacity, notify)
        self._claims = _Claims(self)

    def allocate(self, size: int) -> RingPacket | None:
        """Return room for a packet of `size` bytes, to be filled and given to `send`; None if the ring is full.

        Raises ValueError for more than 65535 bytes, `RingEnded` when the reader has ended, `RingCorrupt` if its head
        is invalid.
        """
        length = record_length(check_size(size))
        if length > self._space():
            return None
        offset = self._next
        self._words[(DATA + offset) >> 2] = size
        self._next = (offset + length) & (self.capacity - 1)
        return self._claims.add(offset, size)

    def send(self, packet: RingPacket) -> None:
        """Hand over an allocated packet, which becomes visible once all allocated before it are sent."""
        self._publish(self._claims.settle(packet, self._next))

    def write(self, packets: Iterable[Packet]) -> int:
        """Write packets as `RingWriter` does. Raise ValueError while allocated packets are unsent."""
        if self._claims:
            raise ValueError("allocated packets of this ring are unsent; send them before writing in bulk")
        return super().write(packets)
