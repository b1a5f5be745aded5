"""The packet path on Windows: bundles from and to the rings of a Wintun session. No control code.

`core.rings` or the native core calls the library for every packet. This module handles errors and waking, once per
bundle.
"""

from collections.abc import Sequence

from threepipe.bundle import Arena, Bundle
from threepipe.core import fast
from threepipe.core.descriptor import MAX_BUNDLE
from threepipe.core.packet import MAX_PACKET, Packet
from threepipe.core.rings import Rings, RingSender
from threepipe.errors import AdapterError, AdapterGone, InvalidPacket, RingCorrupt
from threepipe.platforms.windows.waiting import Arrival, Events, Room
from threepipe.platforms.windows.winerror import reason, windows_error
from threepipe.platforms.windows.wintun import (
    ERROR_BUFFER_OVERFLOW,
    ERROR_HANDLE_EOF,
    ERROR_INVALID_DATA,
    ERROR_NO_MORE_ITEMS,
    Wintun,
)

__all__ = ["WindowsPort"]


class WindowsPort:
    """The traffic of a session, on a session of the library, which it owns."""

    def __init__(self, wintun: Wintun, session: int, name: str, capacity: int, events: Events) -> None:
        """`capacity` is the size in bytes of each ring."""
        self._wintun = wintun
        self._session = session
        self._rings = Rings(wintun, session, capacity)
        self._name = name
        self._ended = 0  # The error code with which the driver ended the session.
        self._arena = Arena()
        self.readable = Arrival(events, wintun.read_wait_event(session))
        self.writable = Room(self.readable.wait_for_end())
        self.sender = RingSender(self._rings, self.writable.found)

    def receive(self) -> Bundle:
        """Return copies of the packets that are ready."""
        return Bundle.of_views(self._receive_or_clear())

    def receive_packets(self) -> list[bytes]:
        """Return copies of the packets that are ready."""
        return list(map(bytes, self._receive_or_clear()))

    def _receive_or_clear(self) -> list[memoryview]:
        packets = self._receive()
        if not packets and not self._ended:
            self.readable.clear()
            packets = self._receive()  # Packets that came before the reset; later ones set it again.
        return packets

    def _receive(self) -> list[memoryview]:
        """Return the packets that are ready, and set `readable` again if there may be more."""
        self._check_alive()
        packets, used, code = fast.ring_receive(self._rings, self._arena.free(), MAX_BUNDLE)
        self._arena.take(used)
        if code != ERROR_NO_MORE_ITEMS:
            if not packets:
                raise self._end(code)
            self.readable.again()
        return packets

    def send(self, bundle: Bundle) -> Bundle:
        self._check_alive()
        packets = bundle.buffers
        longest = max(map(len, packets), default=0)
        if longest > MAX_PACKET:  # The library would accept it and corrupt the ring.
            raise InvalidPacket(list(map(len, packets)).index(longest), f"is longer than {MAX_PACKET} bytes")
        return Bundle(packets[self._accepted(packets) :])

    def _accepted(self, packets: Sequence[Packet]) -> int:
        """Send packets until there is no room, and return how many were accepted."""
        accepted, code = fast.ring_send(self._rings, packets)
        if accepted:
            self.writable.found()
        elif code not in (0, ERROR_BUFFER_OVERFLOW):
            raise self._end(code)
        return accepted

    def lend(self) -> None:
        """Lend nothing: the rings have no descriptors."""

    def wake(self) -> None:
        self.readable.end()

    def stop(self) -> None:
        self.sender.stop()
        self._wintun.end_session(self._session)

    def dispose(self) -> None:
        self.readable.close()

    def _check_alive(self) -> None:
        if self._ended:
            raise self._end(self._ended)

    def _end(self, code: int) -> AdapterError | RingCorrupt:
        """Record how the session ended, wake all waiters, and return the error."""
        self._ended = code
        self.readable.end()
        if code == ERROR_INVALID_DATA:
            text = f"the driver corrupted the ring of {self._name}; close the session and start another"
            return RingCorrupt(text)
        if code == ERROR_HANDLE_EOF:
            text = f"{self._name} was removed by another program, or its driver failed; create or open it again"
            return windows_error(AdapterGone, code, text)
        return windows_error(AdapterError, code, f"{self._name}: {reason(code)}")
