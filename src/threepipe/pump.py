"""The pump's loop between file descriptors, without sessions and bundles between: only what each packet needs.

Knows no platform: which descriptors, and what they take, is the caller's business. `threepipe.pipe` is
what programs call.
"""

import errno
import io
import selectors
from array import array
from collections.abc import Sequence
from typing import Protocol

from threepipe.coalesce import coalesce
from threepipe.descriptor import FULL, MAX_BUNDLE, receive, send
from threepipe.offload import measure, plain_records, split
from threepipe.packet import is_packet

__all__ = ["HasFileno", "pump"]

_MEMORY = 0x100000  # Bytes a bundle is received into: 15 superpackets, or 256 packets of 1500 bytes and more.
_GO_ON, _BELL = -1, 0  # In place of an errno.


class HasFileno(Protocol):
    def fileno(self) -> int: ...


def pump(
    sources: Sequence[io.FileIO],
    target: io.FileIO,
    bells: Sequence[HasFileno],
    received: "array[int]",
    sent: "array[int]",
    headed: bool,
    coalescing: bool,
    udp: bool,
) -> tuple[int, bool, bool]:
    """Move what the non-blocking `sources` have to `target` until one of `bells` is readable; blocks.

    Every record is a packet or, if `headed`, has a virtio header in front. `received` counts packets, bytes
    and bundles, `sent` the same and dropped packets: arrays of typecode Q, added to as it happens. What is
    no IP packet is dropped. While the target has no room the packets wait for it; while its link is down
    they are dropped. With `coalescing` bundles are coalesced, UDP only if `udp`, until the target refuses a
    superpacket (EINVAL): from then on it gets packets only.

    Returns the errno of what ended it, or 0 for a bell; whether it was the target's; and whether the target
    still takes superpackets. Packets that were on their way are dropped, and counted.
    """
    outlet = _Outlet(target, bells, sent, headed, coalescing, udp)
    memory = memoryview(bytearray(_MEMORY))
    with _waiting(bells, sources, selectors.EVENT_READ) as selector:
        while True:
            for source in _ready(selector):
                if source is None:
                    return _BELL, False, outlet.coalescing
                try:
                    records = receive(source, memory, MAX_BUNDLE)
                except OSError as error:
                    return error.errno or errno.EIO, False, outlet.coalescing
                if not records:
                    continue
                packets, size, valid = _measure(records, headed)
                received[0] += packets
                received[1] += size
                received[2] += 1
                if (end := outlet.forward(records, packets, size, valid)) != _GO_ON:
                    return end, end != _BELL, outlet.coalescing


class _Outlet:
    """The target, and what is done with a bundle for it."""

    def __init__(
        self,
        target: io.FileIO,
        bells: Sequence[HasFileno],
        counts: "array[int]",
        headed: bool,
        coalescing: bool,
        udp: bool,
    ) -> None:
        self.coalescing = coalescing
        self._target, self._bells, self._counts = target, bells, counts
        self._headed, self._udp = headed, udp

    def forward(self, records: Sequence[memoryview], packets: int, size: int, valid: bool) -> int:
        """Write them all, if it takes waiting; an errno, or one of the words for there being none."""
        if not valid:
            good = [packet for packet in (split(records) if self._headed else records) if is_packet(packet)]
            self._counts[3] += packets - len(good)
            packets, size = len(good), sum(map(len, good))
            records = plain_records(good) if self._headed else good
        elif self._headed and not self.coalescing:
            records = plain_records(split(records))
        elif self._headed and len(records) > 1:
            records = coalesce(records, True, self._udp)
        written, error = send(self._target, records)
        if written == len(records):
            self._count(packets, size)
            return _GO_ON
        self._count(*_measure(records[:written], self._headed)[:2])
        return self._overcome(error, records[written:])

    def _overcome(self, error: int, records: Sequence[memoryview]) -> int:
        """Do what can be done about `error` at the first of `records`, and write the rest."""
        while records:
            if error in FULL:
                if not self._room():
                    self._drop(records)
                    return _BELL
            elif error == errno.EINVAL and self._headed and records[0][1]:
                self.coalescing = False  # A kernel that offers superpackets and refuses them: there are such.
                records = plain_records(split(records))
            elif error == errno.EINVAL:
                self._drop(records[:1])
                records = records[1:]
            else:
                self._drop(records)
                return _GO_ON if error == errno.EIO else error
            written, error = send(self._target, records)
            self._count(*_measure(records[:written], self._headed)[:2])
            records = records[written:]
        return _GO_ON

    def _room(self) -> bool:
        """Wait for it; False where a bell was faster."""
        with _waiting(self._bells, [self._target], selectors.EVENT_WRITE) as selector:
            return None not in _ready(selector)

    def _count(self, packets: int, size: int) -> None:
        if packets:
            self._counts[0] += packets
            self._counts[1] += size
            self._counts[2] += 1

    def _drop(self, records: Sequence[memoryview]) -> None:
        self._counts[3] += _measure(records, self._headed)[0]


def _measure(records: Sequence[memoryview], headed: bool) -> tuple[int, int, bool]:
    if headed:
        return measure(records)
    return len(records), sum(map(len, records)), all(map(is_packet, records))


def _waiting(bells: Sequence[HasFileno], files: Sequence[io.FileIO], event: int) -> selectors.BaseSelector:
    selector = selectors.DefaultSelector()
    for bell in bells:
        selector.register(bell, selectors.EVENT_READ, None)
    for file in files:
        selector.register(file, event, file)
    return selector


def _ready(selector: selectors.BaseSelector) -> list[io.FileIO | None]:
    """The files that are ready, after waiting for one; None for a bell, which comes first."""
    ready = [key.data for key, _ in selector.select()]
    return [None] if None in ready else ready
