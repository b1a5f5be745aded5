"""Packets that a program writes one by one, gathered to be sent together. Knows no files and no sessions."""

from collections import deque
from contextlib import suppress

from threepipe.core.packet import Packet, is_packet

__all__ = ["Gatherer"]


class Gatherer:
    """Keeps packets until they are taken. Every method may be called from any thread."""

    def __init__(self, front: int) -> None:
        """Take packets that have `front` bytes of something else before them."""
        self._front = front
        self._kept: deque[memoryview] = deque()
        self._size = 0

    def add(self, data: Packet) -> int:
        """Keep the packet in `data`, and return the bytes of all packets kept; 0 if it is not an IP packet.

        It is copied only if it could change.
        """
        packet = memoryview(bytes(data))[self._front :]  # Bytes stay the same object.
        if not is_packet(packet):
            return 0
        self._kept.append(packet)
        self._size += len(packet)
        return self._size

    def take(self) -> list[memoryview]:
        """Return the packets, and keep them no longer."""
        self._size, packets = 0, list[memoryview]()
        with suppress(IndexError):  # Another thread may add some meanwhile, or take them.
            while True:
                packets.append(self._kept.popleft())
        return packets
