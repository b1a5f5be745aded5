"""Datagrams: a packet in each, sent and received one a system call; what every system can.

Platforms that can do more have a `Datagrams` of their own. Knows no sessions.
"""

import errno
import socket
from collections.abc import Sequence
from typing import Any, TypeAlias

from threepipe.errors import EndpointError
from threepipe.offload import MAX_RECORD

__all__ = ["Datagrams", "Source"]

Source: TypeAlias = Any
"""Where a datagram came from, as the socket module has it; None where it does not say."""


class Datagrams:
    """A non-blocking datagram socket; one thread may receive while another sends."""

    def __init__(self, bound: socket.socket) -> None:
        bound.setblocking(False)
        self.socket = bound

    def receive(self, memory: memoryview, limit: int) -> tuple[list[memoryview], int, Source]:
        """Datagrams that are ready, of one source, at the start of `memory`, and how many bytes they take.

        `memory` has room for one at least. There may be more than `limit` of them. Raises `OSError`,
        `BlockingIOError` where nothing is ready.
        """
        used, size, source = self.receive_run(memory)
        starts = range(0, used, size) if size else (0,)
        return [memory[start : min(start + size, used)] for start in starts], used, source

    def receive_run(self, memory: memoryview) -> tuple[int, int, Source]:
        """As `receive`, but not taken apart: how many bytes came, and of how many each datagram is but the last."""
        size, source = self.socket.recvfrom_into(memory, MAX_RECORD)
        return size, size, source

    def send(self, packets: Sequence[memoryview], target: Source) -> tuple[int, int]:
        """Send to `target` (None: whom the socket is connected to) until there is no room.

        Returns how many were sent, and the errno of what stopped it or 0.
        """
        sent = 0
        try:
            for packet in packets:
                self.send_one(packet, target)
                sent += 1
        except BlockingIOError:
            return sent, 0
        except OSError as error:
            return sent, error.errno or 0
        return sent, 0

    def send_run(self, memory: memoryview, size: int, target: Source) -> int:
        """Send datagrams that lie one behind the other, each of `size` bytes but the last, until there is no room.

        Returns how many bytes were sent. A run is of at most 64 datagrams and 65000 bytes. Raises `OSError` where one
        cannot be sent to `target`.
        """
        for start in range(0, len(memory), size):
            try:
                self.send_one(memory[start : start + size], target)
            except BlockingIOError:
                return start
        return len(memory)

    def send_one(self, packet: memoryview, target: Source) -> None:
        if target is None:
            self.socket.send(packet)
        else:
            self.socket.sendto(packet, target)

    def room(self, target: Source) -> int:
        """Bytes a datagram to `target` may have to pass whole, 0 where the system does not say."""
        return 0

    def mark(self, fwmark: int) -> None:
        """Mark what is sent, for policy routing; 0 for no mark. Raises `EndpointError` where the system has none."""
        if fwmark:
            raise EndpointError(errno.ENOTSUP, "this system marks no packets; leave out the fwmark")

    def allow_fragments(self) -> None:
        """From now on datagrams that are too long for their path go in fragments."""
