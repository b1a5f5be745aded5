"""The pump's loop between file descriptors, without sessions and bundles between: only what each packet needs.

Knows no platform: which descriptors, and what they take, is the caller's business. `threepipe.pipe` is
what programs call.
"""

import errno
import io
import os
import selectors
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from threepipe.core.coalesce import coalesce
from threepipe.core.descriptor import FULL, MAX_BUNDLE, receive, send
from threepipe.core.packet import is_packet
from threepipe.core.superpacket import measure, plain_records, split

if TYPE_CHECKING:
    from threepipe.backend import Port

__all__ = ["End", "HasFileno", "Loan", "pump"]

_MEMORY = 0x100000  # Bytes a bundle is received into: 15 superpackets, or 256 packets of 1500 bytes and more.


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class End:
    """One of the two ends: its non-blocking descriptors, and what it counts."""

    def __init__(
        self,
        sources: Sequence[io.FileIO],
        target: io.FileIO,
        received: "array[int]",
        sent: "array[int]",
        coalescing: bool,
    ) -> None:
        """`received` counts packets, bytes and bundles, `sent` the same and dropped packets: of typecode Q.

        `coalescing` says whether it takes superpackets, and becomes False when it refuses one (EINVAL).
        """
        self.sources = sources
        self.target = target
        self.received = received
        self.sent = sent
        self.coalescing = coalescing


class Loan(NamedTuple):
    """What a port lends to another one that pumps for both."""

    end: End
    port: "Port"
    """Itself, for who pumps in bundles."""
    bell: HasFileno
    """Readable when the pump is to return."""
    headed: bool
    """Whether records have a virtio header."""
    udp: bool
    """Whether it takes superpackets of UDP."""
    failed: Callable[[int], Exception]
    """The error to be raised for an errno of its descriptors."""


def pump(left: End, right: End, bells: Sequence[HasFileno], headed: bool, udp: bool) -> tuple[int, End | None]:
    """Move what each end has to the other until one of `bells` is readable; blocks.

    Every record is a packet or, if `headed`, has a virtio header in front. What is no IP packet is dropped.
    While an end has no room, the packets wait for it, and the other end with them; while its link is down,
    they are dropped. An end that is `coalescing` gets superpackets made of bundles, of UDP only if `udp`.

    Returns 0 and None for a bell, or the errno of what ended it and at which end. Packets that are on
    their way then are dropped, and counted.
    """
    ways = [_Direction(left, right, headed, udp), _Direction(right, left, headed, udp)]
    memory = memoryview(bytearray(_MEMORY))
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for bell in bells:
            selector.register(bell, selectors.EVENT_READ)
        for direction in ways:
            stack.callback(direction.drop_waiting)
            for source in direction.near.sources:
                selector.register(source, selectors.EVENT_READ, direction)
        while True:
            for key, _ in selector.select():
                end = None
                way: _Direction | None = key.data
                if way is None:
                    return 0, None
                if key.fileobj is way.room:
                    way.stop_waiting(selector)
                    end = way.write(way.waiting)
                elif not way.waiting:  # Else it began to wait just now, with another of its sources.
                    end = way.move(cast(io.FileIO, key.fileobj), memory)
                if end is not None:
                    return end
                if way.waiting and way.room is None:
                    way.start_waiting(selector)


class _Direction:
    """From one end to the other, and what waits for room there."""

    def __init__(self, near: End, far: End, headed: bool, udp: bool) -> None:
        self.near, self.far = near, far
        self.waiting: Sequence[memoryview] = ()
        self.room: io.FileIO | None = None  # The far end's target once more, to be told when it has some.
        self._headed, self._udp = headed, udp

    def move(self, source: io.FileIO, memory: memoryview) -> tuple[int, End] | None:
        """Receive a bundle and write it; an errno and at which end it was, if that is the end of all."""
        try:
            records = receive(source, memory, MAX_BUNDLE)
        except OSError as error:
            return error.errno or errno.EIO, self.near
        if not records:
            return None
        packets, size, valid = measure(records, self._headed)
        counts = self.near.received
        counts[0] += packets
        counts[1] += size
        counts[2] += 1
        if not valid:
            good = [packet for packet in (split(records) if self._headed else records) if is_packet(packet)]
            self.far.sent[3] += packets - len(good)
            packets, size = len(good), sum(map(len, good))
            records = plain_records(good) if self._headed else good
        elif self._headed and not self.far.coalescing:
            records = plain_records(split(records))
        elif self._headed and len(records) > 1:
            records = coalesce(records, True, self._udp)
        written, error_number = send(self.far.target, records)
        if written == len(records):
            self._count(packets, size)
            return None
        return self._overcome(records, written, error_number)

    def write(self, records: Sequence[memoryview]) -> tuple[int, End] | None:
        """Write them, once more; what finds no room is `waiting` then. Returns as `move`."""
        self.waiting = ()
        return self._overcome(records, *send(self.far.target, records))

    def _overcome(self, records: Sequence[memoryview], written: int, error: int) -> tuple[int, End] | None:
        """Count what was written, do what can be done about `error` at the first of the rest, and go on with it."""
        while True:
            self._count(*measure(records[:written], self._headed)[:2])
            if not (records := records[written:]):
                return None
            if error in FULL:
                # In memory of its own, for the next bundle comes where these records are.
                self.waiting = [memoryview(bytearray(record)) for record in records]
                return None
            if error == errno.EINVAL and self._headed and records[0][1]:
                self.far.coalescing = False  # A kernel that offers superpackets and refuses them: there are such.
                records = plain_records(split(records))
            elif error == errno.EINVAL:
                self._drop(records[:1])
                records = records[1:]
            else:
                self._drop(records)
                return None if error == errno.EIO else (error, self.far)
            written, error = send(self.far.target, records)

    def start_waiting(self, selector: selectors.BaseSelector) -> None:
        for source in self.near.sources:
            selector.unregister(source)
        # A second descriptor, for the first may be waited for as the source of the other direction.
        self.room = io.FileIO(os.dup(self.far.target.fileno()), "w")
        selector.register(self.room, selectors.EVENT_WRITE, self)

    def stop_waiting(self, selector: selectors.BaseSelector) -> None:
        assert self.room is not None
        selector.unregister(self.room)
        self.room.close()
        self.room = None
        for source in self.near.sources:
            selector.register(source, selectors.EVENT_READ, self)

    def drop_waiting(self) -> None:
        self._drop(self.waiting)
        if self.room is not None:
            self.room.close()

    def _count(self, packets: int, size: int) -> None:
        if packets:
            counts = self.far.sent
            counts[0] += packets
            counts[1] += size
            counts[2] += 1

    def _drop(self, records: Sequence[memoryview]) -> None:
        self.far.sent[3] += measure(records, self._headed)[0]
