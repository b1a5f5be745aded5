"""A stand-in for pytun-pmd3 3.0: `from threepipe.compat.pytun_pmd3 import TunTapDevice`.

Packets are received in bundles, as superpackets where the system has them. Those that a task writes are gathered until
the event loop's next turn and sent as one bundle; long ones are sent at once, as few of them would fit into a
superpacket. docs/handing-over.md has the differences.
"""

import errno
import sys
from collections import deque
from typing import TYPE_CHECKING

from threepipe.bundle import Bundle
from threepipe.compat.device import FLAGS, NODE, Device
from threepipe.core.fast import NATIVE, Gatherer
from threepipe.core.packet import Packet
from threepipe.errors import ThreepipeError
from threepipe.platforms import PACKET_INFORMATION, PIPES_CAN_BE_AWAITED
from threepipe.session import Session

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from threepipe.compat.arrivals import Arrivals

__all__ = ["PytunError", "TunTapDevice"]

_SIZE = 4
_MOST = 1 << 17  # Bytes gathered at most: two superpackets. More memory at once is slow to get.
_LONG = 10_000  # Bytes of a packet that is not gathered: in a superpacket it takes longer than alone.
_sendable = memoryview if NATIVE else bytes  # Python's way for single packets is for bytes alone.
_PATIENCE = 1.0  # Seconds for room in a full ring; the rest is counted as dropped.


class PytunError(OSError):
    """The error of every method."""


class TunTapDevice(Device):
    """A TUN device. On Linux `read` and `write` have packet information before each packet, and nowhere else."""

    Error = PytunError
    version = 6
    prefix = 64

    def __init__(self, name: str = "", flags: int = FLAGS["IFF_TUN"], dev: str = NODE) -> None:
        super().__init__(name, flags, dev, offload=True)
        self._front = _SIZE if PACKET_INFORMATION and not flags & FLAGS["IFF_NO_PI"] else 0
        self._gatherer = Gatherer(self._front)
        self._received: deque[bytes] = deque()
        self._failure: OSError | None = None
        self._arrivals: Arrivals | None = None  # Of the session, once a task has waited.
        self._waiting = False  # True while an event loop is to flush.

    @property
    def interface_index(self) -> int:
        """The number by which the system knows the interface."""
        return self._adapter.index

    def read(self, size: int = 1 << 16) -> bytes:
        """Wait for a packet and return its first `size` bytes, which count the packet information."""
        if size <= 0:
            raise ValueError("size must be > 0")
        with self._errors():
            packet = self._received.popleft() if self._received else self._open_session().receive_packet()
        return ((PACKET_INFORMATION[packet[0] >> 4] if self._front else b"") + packet)[:size]

    async def async_read(self) -> bytes:
        """Return the next packet, without packet information."""
        while not self._received:
            self._received.extend(await self.async_read_batch())
        return self._received.popleft()

    async def async_read_batch(self) -> list[bytes]:
        """Return the next packets, all that are ready, without packet information."""
        while not self._received:
            try:
                await (self._arrival() if self._arrivals is None else self._arrivals.wait())
            except (OSError, ThreepipeError):
                with self._errors():
                    raise
        packets = list(self._received)
        self._received.clear()
        return packets

    def write(self, data: Packet) -> int:
        """Send a packet, behind packet information on Linux, and return the size of `data`.

        In a running event loop it goes with all others of this turn of the loop, unless it is long, and the next write
        raises if they could not be sent.
        """
        if (size := len(data)) >= _LONG:
            session = self._session
            if session is None or self._waiting or self._failure is not None:
                session = self._session_in_order()
            try:
                session.send_packet(_sendable(data)[self._front :], _PATIENCE)
            except (OSError, ThreepipeError):
                with self._errors():
                    raise
            return size
        kept = self._gatherer.add(data)
        if not kept or kept <= size - self._front:  # It is the first.
            self._begin(kept)
        elif kept >= _MOST:
            self._flush()
        return size

    async def _arrival(self) -> None:
        """Wait until packets may have been received, for the first time in this session."""
        session = self._open_session()
        if not PIPES_CAN_BE_AWAITED:  # Then event loops cannot wait for a session's descriptor either.
            with await session.receive_async() as bundle:
                self._received.extend(bundle.copies())
            return
        from threepipe.compat.arrivals import Arrivals

        self._arrivals = Arrivals(session, self._received)
        await self._arrivals.wait()

    def _started(self, session: Session) -> None:
        self._arrivals = None

    def _session_in_order(self) -> Session:
        """Return the session, once all that was written before is sent."""
        self._raise_failure()
        session = self._open_session()
        self._flush()
        return session

    def _begin(self, kept: int) -> None:
        """Have a running event loop flush at its next turn, or flush at once. Raise what went wrong before."""
        if not kept:
            raise self.Error(errno.EINVAL, "the data is not an IP packet, on Linux behind 4 bytes")
        try:
            self._raise_failure()
            self._open_session()
        except OSError:
            self._gatherer.take()
            raise
        if not self._waiting and (loop := _running_loop()) is not None:
            loop.call_soon(self._flush_later)
            self._waiting = True
        if not self._waiting:
            self._flush()

    def down(self) -> None:
        """Send the packets written so far, and take the link down."""
        self._flush_later()
        super().down()

    def close(self) -> None:
        """Send the packets written so far, and close the device. May be repeated."""
        self._flush_later()
        super().close()
        self._arrivals = None

    def _raise_failure(self) -> None:
        """Raise what went wrong before, once."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _flush_later(self) -> None:
        """Flush, and keep an error for the next write."""
        self._waiting = False
        try:
            self._flush()
        except OSError as error:
            self._failure = error

    def _flush(self) -> None:
        packets = self._gatherer.take()
        if packets and self._session is not None:
            with self._errors():
                self._session.send(Bundle.of_views(packets), _PATIENCE)


def _running_loop() -> "AbstractEventLoop | None":
    if "asyncio" not in sys.modules:
        return None  # A program that has not loaded it runs no loop.
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
