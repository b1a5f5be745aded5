"""The rings of a Wintun session: receiving and sending bundles, with two calls of its library per packet.

This module owns the order of those calls. It releases every packet that it received and sends every packet that it
allocated, whatever happens in between, as a missing one would block all later packets. It releases and sends from the
last packet to the first: Wintun publishes the complete packets from the start of the ring on, so that the whole bundle
appears at once, with one wake-up of the driver. It does not know ctypes, only the functions, references and memory that
ctypes made.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat, takewhile
from operator import add
from typing import Any, Protocol

from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.core.packet import MAX_PACKET, SHORTEST, Packet
from threepipe.core.sender import CountingSender

__all__ = ["PacketFunctions", "RingSender", "Rings", "ring_receive", "ring_send"]


class PacketFunctions(Protocol):
    """The functions of Wintun that run for every packet; on an error they return None.

    A reference is the result of `reference_to`.
    """

    receive_packet: Callable[[Any, Any], int | None]
    """(reference to the session, reference to a DWORD for the size) -> address of the packet."""
    receive_packet_with_error: Callable[[int, int], int | None]
    """The same for addresses; on an error, `last_error` returns its code."""
    release_receive_packet: Callable[[int, int], object]
    """(session, address of the packet)"""
    allocate_send_packet: Callable[[Any, int], int | None]
    """(reference to the session, size) -> address of the packet. The size is not checked."""
    allocate_send_packet_with_error: Callable[[int, int], int | None]
    """The same for an address; on an error, `last_error` returns its code."""
    send_packet: Callable[[int, int], object]
    """(session, address of the packet)"""
    addresses: tuple[int, int, int, int]
    """The addresses of the functions that receive, release, allocate and send."""

    def last_error(self) -> int: ...

    def reference_to(self, address: int, /) -> Any: ...

    def memory_at(self, address: int, size: int, /) -> memoryview:
        """Return a view of `size` bytes at `address`, without reading them."""


class Rings:
    """The two rings of an open session. One thread at a time may use a direction."""

    def __init__(self, library: PacketFunctions, session: int, capacity: int) -> None:
        """`session` is a handle; `capacity` is the size in bytes of each ring."""
        self.addresses = (session, *library.addresses)
        self.library = library
        self.session = session
        self.sessions, self.references = repeat(session), repeat(library.reference_to(session))
        self.sizes = array("I", bytes(4 * MAX_BUNDLE))
        start, _ = self.sizes.buffer_info()
        self.places = range(start, start + 4 * MAX_BUNDLE, 4)  # A DWORD for the size of each packet.
        self.place_references = list(map(library.reference_to, self.places))
        self.inbound, self.outbound = _Window(library, capacity), _Window(library, capacity)


def ring_receive(rings: Rings, memory: memoryview, limit: int) -> tuple[list[memoryview], int, int]:
    """Return copies of up to `limit` ready packets (256 at most), the bytes of `memory` used, and an error code.

    The code is that of the call that found no packet, or 0 if there may be more packets. If the packets do not fit
    into `memory`, all are in new memory.
    """
    library, pointers, code = rings.library, list[int](), 0
    references = rings.place_references[:limit]
    try:
        pointers.extend(takewhile(bool, map(library.receive_packet, rings.references, references)))  # type: ignore[arg-type]
        if len(pointers) < len(references):  # Call once more, for the error code.
            if pointer := library.receive_packet_with_error(rings.session, rings.places[len(pointers)]):
                pointers.append(pointer)
            else:
                code = library.last_error()
        packets, used = _copies(rings, pointers, memory)
    finally:
        _run(map(library.release_receive_packet, rings.sessions, reversed(pointers)))
    return packets, used, code


def _copies(rings: Rings, pointers: list[int], memory: memoryview) -> tuple[list[memoryview], int]:
    """Copy the packets at `pointers` together with the bytes between them, in one piece, or in two if the ring wraps.

    The ring wraps once at most, as all these packets are held.
    """
    if not pointers:
        return [], 0
    sizes = rings.sizes[: len(pointers)]
    wrap = pointers.index(min(pointers))
    runs = [slice(0, wrap), slice(wrap, None)] if wrap else [slice(None)]
    total = sum(pointers[run][-1] + sizes[run][-1] - pointers[run][0] for run in runs)
    used = total
    if total > len(memory):
        memory, used = memoryview(bytearray(total)), 0
    packets, end = list[memoryview](), 0
    for run in runs:
        first, last = pointers[run][0], pointers[run][-1] + sizes[run][-1]
        start, end = end, end + last - first
        memory[start:end] = rings.inbound.between(first, last)
        starts = [pointer - first + start for pointer in pointers[run]]
        packets += map(memory.__getitem__, map(slice, starts, map(add, starts, sizes[run])))
    return packets, used


def ring_send(rings: Rings, packets: Sequence[Packet]) -> tuple[int, int]:
    """Send `packets` of at most 65535 bytes; return how many fit, and the code of the failed call, or 0."""
    library, pointers, code = rings.library, list[int](), 0
    sizes = list(map(len, packets))
    try:
        pointers.extend(takewhile(bool, map(library.allocate_send_packet, rings.references, sizes)))  # type: ignore[arg-type]
        while len(pointers) < len(sizes):  # Call once more, for the error code.
            if not (pointer := library.allocate_send_packet_with_error(rings.session, sizes[len(pointers)])):
                code = library.last_error()
                break
            pointers.append(pointer)
        _fill(rings, pointers, packets, sizes)
    except BaseException:
        _fill(rings, pointers, map(bytes, sizes), sizes)  # Zeros are not packets; the driver discards them.
        raise
    finally:
        _run(map(library.send_packet, rings.sessions, reversed(pointers)))
    return len(pointers), code


def _fill(rings: Rings, pointers: list[int], packets: Iterable[Packet], sizes: list[int]) -> None:
    if not pointers:
        return
    ring, base = rings.outbound.around(pointers[0])
    starts = [pointer - base for pointer in pointers]
    # Stops at the shorter sequence: some packets may not have fit.
    _run(map(ring.__setitem__, map(slice, starts, map(add, starts, sizes)), packets))


class RingSender(CountingSender):
    """A `threepipe.backend.PacketSender` for the ring of a session, which must stay open until `stop`.

    Another thread may send a bundle meanwhile: Wintun's functions for sending are thread-safe.
    """

    def __init__(self, rings: Rings, found_room: Callable[[], None]) -> None:
        """`found_room` is called after a packet was sent."""
        super().__init__()
        library = rings.library
        self._allocate, self._send = library.allocate_send_packet, library.send_packet
        self._session, self._reference = rings.session, library.reference_to(rings.session)
        self._around, self._found_room = rings.outbound.around, found_room

    def send(self, packet: Packet) -> bool:
        """Send a valid packet. Return False, and send nothing, if it is invalid or not bytes, or if an error occurs."""
        if type(packet) is not bytes or not packet or not SHORTEST[packet[0]] <= (size := len(packet)) <= MAX_PACKET:
            return False
        with self._lock:
            if self._stopped or not (pointer := self._allocate(self._reference, size)):
                return False
            try:
                ring, base = self._around(pointer)
                start = pointer - base
                ring[start : start + size] = packet
            finally:
                self._send(self._session, pointer)
            self._packets += 1
            self._bytes += size
        self._found_room()
        return True


class _Window:
    """The memory of one ring as bytes, wherever the library has put it."""

    def __init__(self, library: PacketFunctions, capacity: int) -> None:
        self._memory_at = library.memory_at
        self._reach = capacity + MAX_PACKET + 1  # A record that begins at the end of the ring runs past it.
        self._bytes = memoryview(b"")
        self._base = 0

    def around(self, pointer: int) -> tuple[memoryview, int]:
        """Return the memory that the ring around a packet may cover, and the address of its first byte."""
        if not self._bytes:
            self._base = max(0, pointer - self._reach)
            self._bytes = self._memory_at(self._base, pointer - self._base + self._reach + MAX_PACKET)
        return self._bytes, self._base

    def between(self, first: int, last: int) -> memoryview:
        """Return the bytes between two addresses in the ring."""
        ring, base = self.around(first)
        return ring[first - base : last - base]


_run: Callable[[Iterable[object]], object] = deque[object](maxlen=0).extend
"""Exhaust an iterable for its effects, at the speed of C."""
