"""The forwarding loop: its ends, its counters, and its body in pure Python.

The loop moves bundles both ways between two sides until a bell rings. The native core has the same loop for sides
that can lend their descriptors, as an `End`, and then runs no Python per bundle. This file knows no
platform, and a session only as a `Side`.
"""

import io
import math
import selectors
import time
from array import array
from collections.abc import Callable, Sequence, Sized
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, Self, TypeAlias, TypeVar

from threepipe.errors import EndpointEnded

if TYPE_CHECKING:
    import socket

__all__ = [
    "BUNDLES",
    "BYTES",
    "DROPPED",
    "LINGER",
    "PACKETS",
    "PAUSE",
    "Counts",
    "DatagramHandler",
    "DatagramsEnd",
    "End",
    "HasFileno",
    "NativeEndpoint",
    "PeersEnd",
    "RecordsEnd",
    "RecordsHandler",
    "Side",
    "TunEnd",
    "Way",
    "forward",
    "joinable",
    "new_counts",
]

PACKETS, BYTES, BUNDLES, DROPPED = range(4)
"""Indices of `Counts`; a dropped packet counts at the side that should have sent it."""

Counts: TypeAlias = "array[int]"
"""The counts of one direction: four 64-bit numbers in memory to which the native core adds."""

LINGER = 0.5
"""Seconds in which answers to the last packets of an ended side may still arrive, as with socat."""

PAUSE = 0.001
"""Seconds to wait while a target has no memory for packets: it is writable, so waiting for room would return at once.
The twin of `PAUSE` in the native core's `waiting`."""


_CALM = 8
"""A direction is calm after so many bundles in a row with at most one packet each."""


def new_counts() -> Counts:
    """Return new `Counts`, all 0."""
    return array("Q", bytes(4 * 8))


class HasFileno(Protocol):
    """A file, a socket or anything else that `selectors` takes."""

    def fileno(self) -> int:
        """Return the descriptor."""


class TunEnd:
    """The descriptors of a TUN device, lent to the native loop."""

    kind = "tun"
    bells: Sequence[HasFileno] = ()

    def __init__(
        self,
        sources: Sequence[io.FileIO],
        target: io.FileIO,
        failure: Callable[[int], Exception],
        *,
        vnet_header: bool = False,
        wide: bool = False,
        udp: bool = False,
    ) -> None:
        """Lend the non-blocking files `sources`, to receive from, and `target`, to send to.

        `failure` makes the exception for an errno of these files. `vnet_header`: records have a virtio header.
        `wide`: it is wide in the files (see `threepipe.core.tunnel`). `udp`: the device takes superpackets of UDP too.
        """
        self.sources = sources
        self.target = target
        self.failure = failure
        self.vnet_header = vnet_header
        self.wide = wide
        self.udp = udp
        self.coalescing = vnet_header
        """True while the device takes superpackets; becomes False when it refuses one with EINVAL."""
        self.kept: list[bytearray] = []
        """The records for this end that waited for room when the native loop ended, neither sent nor dropped."""
        self.received, self.sent = new_counts(), new_counts()

    def release(self) -> None:
        """Do nothing: the files belong to the device."""


class PeersEnd:
    """Duplicates of a WireGuard device's UDP sockets, and the router of its peers, lent to one native loop.

    Several loops may have ends of one device; they add to the same counts.
    """

    kind = "peers"
    bells: Sequence[HasFileno] = ()

    def __init__(
        self,
        router: object,
        handler: object,
        sockets: "Sequence[socket.socket]",
        received: Counts,
        sent: Counts,
    ) -> None:
        """Lend `router`, and `handler` for the messages that it cannot handle; see `threepipe.wireguard.routing`."""
        self.router = router
        self.handler = handler
        self.sockets = sockets
        self.received, self.sent = received, sent

    def release(self) -> None:
        """Close the sockets."""
        for lent in self.sockets:
            lent.close()


NativeEndpoint: TypeAlias = tuple[bytes, int, int]
"""An address of 4 or 16 bytes, a port, and the scope of a link-local address."""


class Way(NamedTuple):
    """The destination of datagrams, as the native loop has it."""

    peer: NativeEndpoint | None
    """None: the peer that the socket is connected to."""
    local: bytes | None
    """The local address to send from; None to let the system choose."""
    own: tuple[bytes, int, int] | None
    """The socket's own datagrams as packets: bytes of addresses and ports, their offset, and that of the protocol."""


class DatagramHandler(Protocol):
    """The methods that the native loop calls, from threads of its own, if it cannot decide alone."""

    def way(self) -> Way | None:
        """Return the destination. None: nobody has sent anything yet."""

    def receive(
        self, datagrams: bytearray, size: int, source: NativeEndpoint | None, local: bytes | None
    ) -> tuple[Sequence[memoryview], Way | None]:
        """Receive datagrams of one source, each of `size` bytes but a shorter last one.

        They are not all packets, or not of the peer. Return the packets among them, and the destination from now on.
        """

    def receive_failed(self, error: int) -> None:
        """Handle the errno of receiving."""

    def send(self, packets: Sequence[bytearray], error: int) -> tuple[int, int]:
        """Send packets, the first of which could not be sent for the errno `error`.

        Return how many were sent, and how many of the others can never be sent. There is no room for the rest.
        """

    def dropped_own(self) -> None:
        """Handle that the socket's own datagrams came as packets to send, and were dropped."""


class DatagramsEnd:
    """A datagram socket, lent to the native loop."""

    kind = "datagrams"
    vnet_header = False

    def __init__(self, socket: "socket.socket", handler: DatagramHandler, bells: Sequence[HasFileno] = ()) -> None:
        """Lend a non-blocking socket, and the handler of what the loop does not do itself.

        The loop ends when one of `bells` is readable.
        """
        self.socket = socket
        self.handler = handler
        self.bells = bells
        self.kept: list[bytearray] = []
        """The packets for this end that waited for room when the native loop ended, neither sent nor dropped."""
        self.received, self.sent = new_counts(), new_counts()

    def release(self) -> None:
        """Do nothing: the socket belongs to the port."""


class RecordsHandler(Protocol):
    """The methods by which the native loop reads and writes encrypted bytes, from threads of its own."""

    def receive_bytes(self, limit: int) -> memoryview | None:
        """Return the bytes that are ready, at most `limit`, until the next call; None if none are.

        Nothing is ready then that the file to read from does not show. No bytes: it is the owner's turn.
        """

    def send_bytes(self, data: bytes) -> bool | None:
        """Accept bytes, and return True once all that were accepted are written. Until then `data` must be empty.

        None: they are lost, as the other end reads no more.
        """


class RecordsEnd:
    """A stream of records, lent to the native loop, which ends when the owner has to go on with the stream."""

    kind = "records"

    def __init__(
        self,
        reader: HasFileno,
        writer: HasFileno,
        unread: bytes,
        take_back: Callable[[bytes, bytes, int | None], None],
        bells: Sequence[HasFileno] = (),
    ) -> None:
        """Lend two non-blocking files, and the bytes that were read of an incomplete record.

        `take_back` gets what the loop leaves: the bytes read beyond whole records; those accepted and not yet written;
        and, if it is the owner's turn, the errno of reading, or 0 for the end or a record that is not a packet. The
        loop ends when one of `bells` is readable.
        """
        self.reader, self.writer, self.unread, self.bells = reader, writer, unread, bells
        self.handler: RecordsHandler | None = None
        """Reads and writes if the files have encrypted bytes."""
        self._take_back = take_back
        self.left: tuple[bytes, bytes, int | None] | None = None
        """The arguments for `take_back`, once the loop has ended."""
        self.received, self.sent = new_counts(), new_counts()

    def release(self) -> None:
        """Return the rest to the owner, if the loop ran."""
        if self.left is not None:
            self._take_back(*self.left)
            self.left = None


End: TypeAlias = TunEnd | PeersEnd | DatagramsEnd | RecordsEnd
"""The kinds of ends that the native loop knows."""


Packets = TypeVar("Packets", bound=Sized)
"""A bundle, of any type with a length."""


def joinable(left: End, right: End) -> bool:
    """Return True if the native loop joins the two: not TUN devices with two formats of records, nor two of peers."""
    if isinstance(left, TunEnd) and isinstance(right, TunEnd):
        return left.vnet_header == right.vnet_header
    return not (isinstance(left, PeersEnd) and isinstance(right, PeersEnd))


class Side(Protocol[Packets]):
    """One side of the loop. Nothing here blocks."""

    @property
    def readable(self) -> HasFileno:
        """Become readable when `receive` may return packets or raise."""

    @property
    def writable(self) -> HasFileno:
        """Become readable when `send` may accept packets or raise."""

    def receive(self) -> Packets:
        """Return the packets that are ready. Raise `EndpointEnded` when there will be no more."""

    def send(self, packets: Packets, /) -> Packets:
        """Accept packets and return those without room. Drop and count those that can never be sent.

        Drop and count all of them before raising.
        """

    def drop(self, packets: Packets, /) -> None:
        """Count packets that will not be sent."""

    def pass_on(self, target: Self, /) -> bool:
        """Receive a packet and send it to `target`, by the shortest way. Raise as `receive` and `send` do.

        Return False if that did not move one packet: `receive` has all that is left to move.
        """


def forward(
    left: Side[Packets], right: Side[Packets], bell: HasFileno, leave: Callable[[], bool] | None = None
) -> tuple[Packets | None, Packets | None]:
    """Move bundles both ways until `bell` is readable; return the packets from left and from right that still wait.

    Also returns once `leave`, which is called only while no packets wait, returns True.

    While a side has no room, packets wait for it and no more are received for it; the opposite direction goes on.
    Raises the sides' exceptions, after dropping and counting the packets that still wait; `EndpointEnded` half a second
    later, in which the answers to a side's last packets may still arrive, as with socat.
    """
    with selectors.DefaultSelector() as selector, _Direction(left, right) as there, _Direction(right, left) as back:
        selector.register(bell, selectors.EVENT_READ)
        ready = [there, back]  # Receive before the first wait: that starts the time of a replay.
        rang = bool(selector.select(0))
        ended: EndpointEnded | None = None
        deadline = math.inf
        turn = 0
        while not rang:
            turn += 1
            for direction in ready:
                try:
                    direction.move(selector, turn)
                except EndpointEnded as error:
                    direction.stop(selector)
                    if ended is not None:
                        raise
                    ended, deadline = error, time.monotonic() + LINGER
            if leave is not None and ended is None and there.is_clear and back.is_clear and leave():
                break
            until = deadline
            if pausing := there.pauses or back.pauses:
                until = min(deadline, time.monotonic() + PAUSE)
            events = selector.select(None if until == math.inf else until - time.monotonic())
            ready = [key.data for key, _ in events]
            if ended is not None and time.monotonic() >= deadline:
                raise ended
            rang = None in ready
            if pausing:
                for direction in there, back:
                    if direction.pauses:
                        direction.wait(selector)
        return there.take_waiting(), back.take_waiting()


class _Direction(Generic[Packets]):
    """The way from one side to the other, and the packets that wait for room there."""

    def __init__(self, source: Side[Packets], target: Side[Packets]) -> None:
        self._source, self._target = source, target
        self._waiting: Packets | None = None
        self._registered: HasFileno | None = None
        self._passed_on = 0  # The turn of the last packet that took the shortest way.
        self._alone = 0  # How many bundles in a row had at most one packet, for which there was room.
        self.pauses = False
        """True if the target was writable and yet accepted nothing: to be waited for after `PAUSE`."""

    @property
    def is_clear(self) -> bool:
        """True if no packets wait."""
        return self._waiting is None

    def move(self, selector: selectors.BaseSelector, turn: int) -> None:
        """Move one bundle; then wait until it can go on, or pause.

        While calm, pass on one packet by the shortest way, but look for more if that was done last turn.
        """
        if self._alone >= _CALM and turn > self._passed_on + 1 and self._source.pass_on(self._target):
            self._passed_on = turn
            return
        waited = 0 if self._waiting is None else len(self._waiting)
        self.pauses = False
        packets, self._waiting = self._waiting or self._source.receive(), None
        self._alone = self._alone + 1 if len(packets) < 2 else 0
        if packets:
            self._waiting = self._target.send(packets) or None
        if self._waiting is not None:
            self._alone = 0
        self.pauses = self._waiting is not None and len(self._waiting) == waited
        if self.pauses:
            self.stop(selector)
        else:
            self.wait(selector)

    def wait(self, selector: selectors.BaseSelector) -> None:
        """Wait for room at the target if packets are left, else for packets at the source."""
        awaited = self._source.readable if self._waiting is None else self._target.writable
        if awaited is not self._registered:
            self.stop(selector)
            selector.register(awaited, selectors.EVENT_READ, self)
            self._registered = awaited

    def stop(self, selector: selectors.BaseSelector) -> None:
        """Wait for nothing."""
        if self._registered is not None:
            selector.unregister(self._registered)
            self._registered = None

    def take_waiting(self) -> Packets | None:
        """Return the packets that wait for room, which are the caller's from now on."""
        waiting, self._waiting = self._waiting, None
        return waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting is not None:
            self._target.drop(self._waiting)
