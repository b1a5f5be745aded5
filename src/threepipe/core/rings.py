"""Bundles taken out of and put into the rings of a Wintun session, by two calls of its library for every packet.

Owns the order of those calls: every packet received is released, and every packet allocated is sent, whatever happens
in between, for one that is not would hold all later ones. Both are done from the last packet to the first, which
Wintun allows: it publishes what is complete from the start on, so a bundle is published at once, with one wake-up of
the driver. Knows no ctypes, but what it gives: functions, references and memory.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat, takewhile
from operator import add
from typing import Any, Protocol

from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.core.packet import MAX_PACKET, Packet

__all__ = ["PacketFunctions", "Rings", "give", "take"]


class PacketFunctions(Protocol):
    """The functions of Wintun that run for every packet; what fails returns None.

    References are what `reference_to` makes of an address.
    """

    receive_packet: Callable[[Any, Any], int | None]
    """(reference to the session, reference to a DWORD for the size) -> address of the packet."""
    receive_packet_or_say_why: Callable[[int, int], int | None]
    """The same for addresses; `last_error` then says why it failed."""
    release_receive_packet: Callable[[int, int], object]
    """(session, address of the packet)"""
    allocate_send_packet: Callable[[Any, int], int | None]
    """(reference to the session, size) -> address of the packet. Does not check the size."""
    allocate_send_packet_or_say_why: Callable[[int, int], int | None]
    """The same for an address; `last_error` then says why it failed."""
    send_packet: Callable[[int, int], object]
    """(session, address of the packet)"""
    addresses: tuple[int, int, int, int]
    """Of the functions that receive, release, allocate and send."""

    def last_error(self) -> int: ...

    def reference_to(self, address: int, /) -> Any: ...

    def memory_at(self, address: int, size: int, /) -> memoryview:
        """That memory, whatever is there; nothing is read."""


class Rings:
    """The two rings of a session, which stays open as long as they are used. Not thread-safe in one direction."""

    def __init__(self, library: PacketFunctions, session: int, capacity: int) -> None:
        """`session` is a handle; `capacity`: bytes of each ring."""
        self.addresses = (session, *library.addresses)
        self.library = library
        self.session = session
        self.sessions, self.references = repeat(session), repeat(library.reference_to(session))
        self.sizes = array("I", bytes(4 * MAX_BUNDLE))
        start, _ = self.sizes.buffer_info()
        self.places = range(start, start + 4 * MAX_BUNDLE, 4)  # One DWORD for the size of each packet of a bundle.
        self.place_references = list(map(library.reference_to, self.places))
        self.inbound, self.outbound = _Window(library, capacity), _Window(library, capacity)


def take(rings: Rings, memory: memoryview, limit: int) -> tuple[list[memoryview], int, int]:
    """Up to `limit` packets that are ready: copies, how many bytes of `memory` they took, and the last error.

    The error is that of the call that found nothing, or 0 where there may be more. Packets that do not fit in `memory`
    come, with all others, in memory of their own. 256 at most.
    """
    library, pointers, code = rings.library, list[int](), 0
    references = rings.place_references[:limit]
    try:
        pointers.extend(takewhile(bool, map(library.receive_packet, rings.references, references)))  # type: ignore[arg-type]
        if len(pointers) < len(references):  # Asked once more, in the way that says why.
            if pointer := library.receive_packet_or_say_why(rings.session, rings.places[len(pointers)]):
                pointers.append(pointer)
            else:
                code = library.last_error()
        packets, used = _copies(rings, pointers, memory)
    finally:
        _run(map(library.release_receive_packet, rings.sessions, reversed(pointers)))
    return packets, used, code


def _copies(rings: Rings, pointers: list[int], memory: memoryview) -> tuple[list[memoryview], int]:
    """The packets at `pointers`: copied with what lies between them, at once where their ring does not begin again.

    It begins again once at most, for all of them are held.
    """
    if not pointers:
        return [], 0
    sizes = rings.sizes[: len(pointers)]
    turn = pointers.index(min(pointers))
    runs = [slice(0, turn), slice(turn, None)] if turn else [slice(None)]
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


def give(rings: Rings, packets: Sequence[Packet]) -> tuple[int, int]:
    """Send `packets` of at most 65535 bytes: how many found room, and the error of the call that found none, or 0."""
    library, pointers, code = rings.library, list[int](), 0
    sizes = list(map(len, packets))
    try:
        pointers.extend(takewhile(bool, map(library.allocate_send_packet, rings.references, sizes)))  # type: ignore[arg-type]
        while len(pointers) < len(sizes):  # Asked once more, in the way that says why.
            if not (pointer := library.allocate_send_packet_or_say_why(rings.session, sizes[len(pointers)])):
                code = library.last_error()
                break
            pointers.append(pointer)
        _fill(rings, pointers, packets, sizes)
    except BaseException:
        _fill(rings, pointers, map(bytes, sizes), sizes)  # No packets, which the driver discards.
        raise
    finally:
        _run(map(library.send_packet, rings.sessions, reversed(pointers)))
    return len(pointers), code


def _fill(rings: Rings, pointers: list[int], packets: Iterable[Packet], sizes: list[int]) -> None:
    if not pointers:
        return
    ring, base = rings.outbound.around(pointers[0])
    starts = [pointer - base for pointer in pointers]
    # Not all packets may have found room.
    _run(map(ring.__setitem__, map(slice, starts, map(add, starts, sizes)), packets))


class _Window:
    """One ring's memory as bytes, wherever the library has put it."""

    def __init__(self, library: PacketFunctions, capacity: int) -> None:
        self._memory_at = library.memory_at
        self._reach = capacity + MAX_PACKET + 1  # Of a ring; a record that begins at its end runs past it.
        self._bytes = memoryview(b"")
        self._base = 0

    def around(self, pointer: int) -> tuple[memoryview, int]:
        """Memory as far as the ring can reach on both sides of a packet in it, and the address of its first byte."""
        if not self._bytes:
            self._base = max(0, pointer - self._reach)
            self._bytes = self._memory_at(self._base, pointer - self._base + self._reach + MAX_PACKET)
        return self._bytes, self._base

    def between(self, first: int, last: int) -> memoryview:
        """The bytes from one address in the ring up to another."""
        ring, base = self.around(first)
        return ring[first - base : last - base]


_run: Callable[[Iterable[object]], object] = deque[object](maxlen=0).extend
"""Go through an iterable for what it does, at the speed of C."""
