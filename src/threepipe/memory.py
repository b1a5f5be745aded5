"""Two adapters in one process, each the other's network, over Wintun's ring.

They keep the whole contract and need no privilege and no operating system: for tests, for programs that
bring their own network stack, and for systems without TUN devices.

A session has one ring, for the packets towards its program; the other session writes to it. As on a
cable, packets sent while the other end has no session are refused.
"""

import errno
import itertools
import threading
from itertools import islice
from typing import NoReturn

from threepipe.adapter import Adapter
from threepipe.backend import AdapterInfo, AdapterStatistics
from threepipe.bundle import Arena, Bundle
from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.core.ends import BYTES, PACKETS, Counts, new_counts
from threepipe.errors import AdapterUnavailable, EndpointEnded
from threepipe.net.doorbell import Doorbell
from threepipe.ring import RingReader, RingWriter, ring_size
from threepipe.settings import Address, Network, check_mtu

__all__ = ["MemoryAdapter"]

_numbers = itertools.count()


class MemoryAdapter(Adapter):
    """One of two adapters that `pair` makes. It is not the operating system's, so `adapters()` does not list it."""

    @staticmethod
    def pair(*, mtu: int = 1500) -> tuple["MemoryAdapter", "MemoryAdapter"]:
        """Make two adapters that are each other's network. `mtu`, in bytes, is reported but not enforced.

        The same holds for addresses and routes that are added.
        When one is closed, the other's session raises `EndpointEnded` once it has received the packets sent
        before.
        """
        check_mtu(mtu, ipv6=False)
        left, right = _MemoryDevice(mtu), _MemoryDevice(mtu)
        left.far, right.far = right, left
        return MemoryAdapter(left), MemoryAdapter(right)


class _MemoryDevice:
    """One end: its counts, and its port while it has a session."""

    far: "_MemoryDevice"

    def __init__(self, mtu: int) -> None:
        self.index = next(_numbers)
        self.name = f"memory{self.index}"
        self.mtu = mtu
        self.items: list[Address | Network] = []
        self.port: _MemoryPort | None = None
        self.closed = False
        self.received, self.sent = new_counts(), new_counts()

    def info(self) -> AdapterInfo:
        received, sent = self.received, self.sent
        statistics = AdapterStatistics(received[PACKETS], received[BYTES], 0, sent[PACKETS], sent[BYTES], 0)
        return AdapterInfo(
            self.name,
            self.index,
            self.mtu,
            self.port is not None,
            addresses=tuple(item for item in self.items if not isinstance(item, Network)),
            routes=tuple(item for item in self.items if isinstance(item, Network)),
            statistics=statistics,
        )

    def set_mtu(self, mtu: int) -> None:
        self.mtu = mtu

    def add(self, item: Address | Network) -> None:
        self.items.append(item)

    def remove(self, item: Address | Network) -> None:
        self.items.remove(item)

    def start(self, capacity: int) -> "_MemoryPort":
        port = _MemoryPort(self, capacity)
        self.port = port
        self.far.room_changed()
        return port

    def detach(self, capacity: int) -> NoReturn:
        raise AdapterUnavailable(errno.ENOTSUP, "a memory adapter has no descriptor; give away one of the system")

    def unpersist(self) -> None:
        """Do nothing: a memory adapter never outlives its process."""

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if port := self.far.port:
                port.readable.ring()
            self.far.room_changed()

    def room_changed(self) -> None:
        """Wake the senders of this end, as the far end came, went or made room."""
        if port := self.port:
            port.writable.ring()


class _MemoryPort:
    """The traffic of one end: reads from its own ring, writes to that of the far end's port."""

    def __init__(self, device: _MemoryDevice, capacity: int) -> None:
        self._device = device
        self.readable = Doorbell()
        self.writable = Doorbell()
        self.writable.ring()
        buffer = bytearray(ring_size(capacity))
        self._reader = RingReader(buffer, capacity)
        self._reader.arm()
        self._arena = Arena()
        # Used by the far end, under the lock: it may be sending while this end stops.
        self.inbound = RingWriter(buffer, capacity, self.readable.ring)
        self.inbound_lock = threading.Lock()
        self.sender_waits = False

    def receive(self) -> Bundle:
        memory = self._arena.free()
        sizes = self._reader.read(memory, MAX_BUNDLE)
        ended = self._settle()
        if not sizes:
            if ended:
                raise self._ended()
            if not (sizes := self._reader.read(memory, MAX_BUNDLE)):
                return Bundle()
            self._settle()  # Packets came meanwhile, perhaps without a call of `notify`.
        if self.sender_waits:
            self.sender_waits = False
            self._device.far.room_changed()
        packets, start = [], 0
        for size in sizes:
            packets.append(memory[start : start + size])
            start += size
        self._arena.take(start)
        _count(self._device.received, len(sizes), start)
        return Bundle.of_views(packets)

    def _settle(self) -> bool:
        """Set `readable` while there are packets or the far end is closed; return True if there is the end alone."""
        if empty := self._reader.arm():
            self.readable.clear()
            closed = self._device.far.closed  # Before the next look, which then finds all that was sent.
            empty = self._reader.arm()
            if empty and not closed:
                return False
        self._reader.disarm()
        self.readable.ring()
        return empty

    def send(self, bundle: Bundle) -> Bundle:
        if rest := self._write(bundle):
            # Announce the wait, then try once more, so that room made meanwhile is not missed.
            self.writable.clear()
            if far := self._device.far.port:
                far.sender_waits = True
            rest = self._write(rest)
        return rest

    def _write(self, bundle: Bundle) -> Bundle:
        """Write the packets that fit and return the rest."""
        if self._device.far.closed:
            raise self._ended()
        if (far := self._device.far.port) is None:
            return bundle
        with far.inbound_lock:
            accepted = far.inbound.write(bundle)
        _count(self._device.sent, accepted, sum(map(len, islice(bundle, accepted))))
        return bundle[accepted:]

    def lend(self) -> None:
        """Lend nothing: the ring is Python's."""

    def _ended(self) -> EndpointEnded:
        self.wake()  # For other waiters, which may have missed the doorbell that was cleared just now.
        return EndpointEnded(f"the other end of {self._device.name} was closed")

    def wake(self) -> None:
        self.readable.ring(for_ever=True)
        self.writable.ring(for_ever=True)

    def stop(self) -> None:
        self._device.port = None
        with self.inbound_lock:  # From now on the far end finds no port, or has left this one.
            self._device.far.room_changed()

    def dispose(self) -> None:
        self.readable.close()
        self.writable.close()


def _count(counts: Counts, packets: int, size: int) -> None:
    counts[PACKETS] += packets
    counts[BYTES] += size
