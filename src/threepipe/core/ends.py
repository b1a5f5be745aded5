"""The ends that a side of the forwarding loop can lend to the native core, and the counters of a side.

With two ends, the native core runs the loop of `threepipe.core.pump` without Python for each bundle. Knows no platform.
"""

import io
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import socket

__all__ = [
    "BUNDLES",
    "BYTES",
    "DROPPED",
    "PACKETS",
    "Counts",
    "DatagramHandler",
    "DatagramsEnd",
    "End",
    "HasFileno",
    "NativeEndpoint",
    "PeersEnd",
    "RecordsEnd",
    "RecordsHandler",
    "TunEnd",
    "Way",
    "joinable",
    "new_counts",
]

PACKETS, BYTES, BUNDLES, DROPPED = range(4)
"""Indices of `Counts`; a dropped packet counts at the side that should have sent it."""

Counts: TypeAlias = "array[int]"
"""The counts of one direction: four 64-bit numbers in memory to which the native core adds."""


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


def joinable(left: End, right: End) -> bool:
    """Return True if the native loop joins the two: not TUN devices with two formats of records, nor two of peers."""
    if isinstance(left, TunEnd) and isinstance(right, TunEnd):
        return left.vnet_header == right.vnet_header
    return not (isinstance(left, PeersEnd) and isinstance(right, PeersEnd))
