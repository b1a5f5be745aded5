"""The packet path on Windows: bundles copied out of and into the rings of a Wintun session. No control code.

The library is called twice for every packet, in loops that run in C; errors, locks and waking are once a
bundle. Every packet received is released, and every packet allocated is sent, whatever happens in between: one
that is not would hold all later ones. Both are done from the last packet to the first, which Wintun allows: it
publishes what is complete from the start on, so a bundle is published at once, with one wake-up of the driver.
"""

import ctypes
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat, takewhile
from operator import add

from threepipe.bundle import Arena, Bundle
from threepipe.descriptor import MAX_BUNDLE
from threepipe.device import Counts, Port
from threepipe.errors import AdapterError, AdapterGone, InvalidPacket, RingCorrupt
from threepipe.packet import MAX_PACKET
from threepipe.platforms.windows.waiting import Arrival, Events, Room
from threepipe.platforms.windows.winerror import reason, windows_error
from threepipe.platforms.windows.wintun import (
    ERROR_BUFFER_OVERFLOW,
    ERROR_HANDLE_EOF,
    ERROR_INVALID_DATA,
    ERROR_NO_MORE_ITEMS,
    Wintun,
    get_last_error,
    reference_to,
)

__all__ = ["WindowsPort"]


class WindowsPort:
    """A session's traffic, on a session of the library that it takes over."""

    def __init__(self, wintun: Wintun, session: int, name: str, capacity: int, events: Events) -> None:
        """`capacity`: bytes of each ring."""
        self._wintun = wintun
        self._session = session
        self._sessions, self._references = repeat(session), repeat(reference_to(session))
        self._name = name
        self._ended = 0  # The code with which the session ended by itself.
        self._arena = Arena()
        self._kept = deque[memoryview]()  # Of a bundle from which one packet was asked for.
        self._sizes = array("I", bytes(4 * MAX_BUNDLE))
        start, _ = self._sizes.buffer_info()
        self._places = range(start, start + 4 * MAX_BUNDLE, 4)  # One DWORD for the size of each packet of a bundle.
        self._place_references = list(map(reference_to, self._places))
        self._inbound, self._outbound = _Window(capacity), _Window(capacity)
        self.readable = Arrival(events, wintun.read_wait_event(session))
        self.writable = Room(self.readable.wait_for_end())

    def receive(self, limit: int) -> Bundle:
        kept = self._kept
        if not kept:
            packets = self._take_or_clear(limit if limit > 1 else MAX_BUNDLE)
            if limit > 1 or len(packets) < 2:
                return Bundle.of_views(packets)
            kept.extend(packets)
        packets = [kept.popleft() for _ in range(min(limit, len(kept)))]
        if kept:
            self.readable.again()
        return Bundle.of_views(packets)

    def _take_or_clear(self, limit: int) -> list[memoryview]:
        packets = self._take(limit)
        if not packets and not self._ended:
            self.readable.clear()
            packets = self._take(limit)  # Those that came before it was cleared; later ones set it again.
        return packets

    def _take(self, limit: int) -> list[memoryview]:
        """Copies of what is ready; sets `readable` again where that may not be all."""
        self._check_alive()
        wintun, pointers, code = self._wintun, list[int](), 0
        references = self._place_references[:limit]
        try:
            pointers.extend(takewhile(bool, map(wintun.receive_packet, self._references, references)))
            if len(pointers) < len(references):  # Asked once more, in the way that says why.
                if pointer := wintun.receive_packet_or_say_why(self._session, self._places[len(pointers)]):
                    pointers.append(pointer)
                else:
                    code = get_last_error()
            packets = self._copies(pointers)
        finally:
            _run(map(wintun.release_receive_packet, self._sessions, reversed(pointers)))
        if code != ERROR_NO_MORE_ITEMS:
            if not pointers:
                raise self._end(code)
            self.readable.again()
        return packets

    def _copies(self, pointers: list[int]) -> list[memoryview]:
        """The packets at `pointers`: copied with what lies between them, at once where their ring does not begin again.

        It begins again once at most, for all of them are held.
        """
        if not pointers:
            return []
        sizes = self._sizes[: len(pointers)]
        turn = pointers.index(min(pointers))
        if not turn:
            return self._copy(pointers, sizes)
        return self._copy(pointers[:turn], sizes[:turn]) + self._copy(pointers[turn:], sizes[turn:])

    def _copy(self, pointers: list[int], sizes: "array[int]") -> list[memoryview]:
        first = pointers[0]
        total = pointers[-1] + sizes[-1] - first
        memory = self._arena.free()
        if total <= len(memory):
            self._arena.take(total)
        else:
            memory = memoryview(bytearray(total))
        ring, base = self._inbound.around(first)
        memory[:total] = ring[first - base : first - base + total]
        starts = [pointer - first for pointer in pointers]
        return list(map(memory.__getitem__, map(slice, starts, map(add, starts, sizes))))

    def send(self, bundle: Bundle) -> Bundle:
        self._check_alive()
        packets = list(bundle)
        sizes = list(map(len, packets))
        if sizes and max(sizes) > MAX_PACKET:  # The library would take them, and break its ring.
            raise InvalidPacket(sizes.index(max(sizes)), f"is longer than {MAX_PACKET} bytes")
        wintun, pointers, code = self._wintun, list[int](), 0
        try:
            pointers.extend(takewhile(bool, map(wintun.allocate_send_packet, self._references, sizes)))
            while len(pointers) < len(sizes):  # Asked once more, in the way that says why.
                if not (pointer := wintun.allocate_send_packet_or_say_why(self._session, sizes[len(pointers)])):
                    code = get_last_error()
                    break
                pointers.append(pointer)
            self._fill(pointers, packets, sizes)
        except BaseException:
            self._fill(pointers, map(bytes, sizes), sizes)  # No packets, which the driver discards.
            raise
        finally:
            _run(map(wintun.send_packet, self._sessions, reversed(pointers)))
        if pointers:
            self.writable.found()
        elif code not in (0, ERROR_BUFFER_OVERFLOW):
            raise self._end(code)
        return Bundle.of_views(packets[len(pointers) :])

    def _fill(self, pointers: list[int], packets: Iterable[bytes | memoryview], sizes: list[int]) -> None:
        if not pointers:
            return
        ring, base = self._outbound.around(pointers[0])
        starts = [pointer - base for pointer in pointers]
        # Not all packets may have found room.
        _run(map(ring.__setitem__, map(slice, starts, map(add, starts, sizes)), packets))

    def pump(self, other: Port, counts: tuple[Counts, Counts], other_counts: tuple[Counts, Counts]) -> bool:
        return False  # There are no descriptors to be spared a bundle.

    def interrupt(self) -> None:
        """Nothing: there is no `pump` to be interrupted."""

    def wake(self) -> None:
        self.readable.end()

    def stop(self) -> None:
        self._wintun.end_session(self._session)

    def dispose(self) -> None:
        self.readable.close()

    def _check_alive(self) -> None:
        if self._ended:
            raise self._end(self._ended)

    def _end(self, code: int) -> AdapterError | RingCorrupt:
        """The error that says how the session ended; whoever waits gets it, too."""
        self._ended = code
        self.readable.end()
        if code == ERROR_INVALID_DATA:
            text = f"the driver corrupted the ring of {self._name}; close the session and start another"
            return RingCorrupt(text)
        if code == ERROR_HANDLE_EOF:
            text = f"{self._name} was removed by somebody else, or its driver gave up; make or open it again"
            return windows_error(AdapterGone, code, text)
        return windows_error(AdapterError, code, f"{self._name}: {reason(code)}")


class _Window:
    """One ring's memory as bytes, wherever the library has put it."""

    def __init__(self, capacity: int) -> None:
        self._reach = capacity + MAX_PACKET + 1  # Of a ring; a record that begins at its end runs past it.
        self._bytes = memoryview(b"")
        self._base = 0

    def around(self, pointer: int) -> tuple[memoryview, int]:
        """Memory as far as the ring can reach on both sides of a packet in it, and the address of its first byte."""
        if not self._bytes:
            self._base = max(0, pointer - self._reach)
            size = pointer - self._base + self._reach + MAX_PACKET
            self._bytes = memoryview((ctypes.c_ubyte * size).from_address(self._base)).cast("B")
        return self._bytes, self._base


_run: Callable[[Iterable[object]], object] = deque[object](maxlen=0).extend
"""Go through an iterable for what it does, at the speed of C."""
