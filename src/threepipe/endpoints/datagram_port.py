"""DatagramPort: a session's traffic by datagrams, one packet in each, with one other end.

What Linux calls Foo-over-UDP speaks the same, and a TUN device that socat joins to UDP. Several
datagrams pass in one system call where the platform can do it. Knows no names.
"""

import errno
import selectors
from collections.abc import Sequence

from threepipe.backend import EndpointPort
from threepipe.bundle import Arena, Bundle
from threepipe.core import fast
from threepipe.core.descriptor import FULL, MAX_BUNDLE
from threepipe.core.packet import is_packet
from threepipe.core.superpacket import MAX_RECORD
from threepipe.endpoints.request import Complaints
from threepipe.errors import LinkDown
from threepipe.net.datagrams import Datagrams, Source

__all__ = ["DatagramPort"]

_NOBODY = "nobody receives there (yet)"
_UNREACHABLE = {errno.ECONNREFUSED: _NOBODY, errno.ECONNRESET: _NOBODY}  # The second is what Windows says.
_PATIENCE = 3  # Times that a socket may report what became of earlier datagrams before one is sent.


class DatagramPort(EndpointPort):
    """The other end is whom the socket is connected to or, if `listening`, who sent the last IP packet."""

    def __init__(
        self,
        datagrams: Datagrams,
        complaints: Complaints,
        *,
        listening: bool,
    ) -> None:
        super().__init__()
        self._datagrams = datagrams
        self._complaints = complaints
        self._listening = listening
        self._other: Source = None
        self._arena = Arena()
        self.readable.watch(datagrams.socket, selectors.EVENT_READ)
        self.writable.watch(datagrams.socket, selectors.EVENT_WRITE)

    def receive(self) -> Bundle:
        """Return the IP packets of the datagrams that are ready."""
        packets: list[memoryview] = []
        for _ in range(
            MAX_BUNDLE
        ):  # Bounded by reads, not packets: a flood of invalid datagrams must not starve others.
            memory = self._arena.free()
            if len(packets) >= MAX_BUNDLE or (packets and len(memory) < MAX_RECORD * 2):
                break  # Stop while the arena has room; replacing it for one more read costs more.
            try:
                received, used, source = self._datagrams.receive(memory, MAX_BUNDLE - len(packets))
            except BlockingIOError:
                break
            except OSError as error:
                self._unreachable(error.errno or 0)
                break
            self._arena.take(used)
            packets += self._valid(received, source)
        return Bundle.of_views(packets)

    def _valid(self, packets: Sequence[memoryview], source: Source) -> Sequence[memoryview]:
        """Those that are IP packets; who sends one is whom packets go to from now on."""
        if not fast.measure(packets, vnet_header=False)[2]:
            self._complaints.warn("no packet", f"{_name(source)} sent a datagram that is no IP packet")
            packets = [packet for packet in packets if is_packet(packet)]
        if packets and self._listening and source != self._other:
            self._complaints.tell(f"{_name(source)} is there")
            self._other = source
        return packets

    def send(self, bundle: Bundle) -> Bundle:
        if self._listening and self._other is None:
            raise LinkDown(errno.EDESTADDRREQ, "nobody has sent a packet yet")
        packets, total = list(bundle), len(bundle)
        for _ in range(_PATIENCE):
            written, error = self._datagrams.send(packets, self._other)
            packets = packets[written:]
            if error in FULL:
                return Bundle.of_views(packets)
            if error == errno.EMSGSIZE:
                self._tell_room(len(packets[0]))
            else:
                self._unreachable(error)
        if len(packets) == total:
            raise LinkDown(error, "the datagrams cannot be sent")
        return Bundle.of_views(packets)

    def _tell_room(self, size: int) -> None:
        room = self._datagrams.room(self._other)
        self._complaints.warn(
            "room",
            f"packets of {size} bytes do not fit in datagrams of {room} bytes, which is what the path takes whole; from"
            f" now on they go in fragments, which is slow and loses more: set mtu={room} on the adapters of both ends",
        )
        self._datagrams.allow_fragments()

    def _unreachable(self, error: int) -> None:
        said = _UNREACHABLE.get(error, errno.errorcode.get(error, str(error)))
        self._complaints.warn("unreachable", f"packets cannot be delivered: {said}")

    def stop(self) -> None:
        self._datagrams.socket.close()


def _name(source: Source) -> str:
    return f"{source[0]} port {source[1]}" if isinstance(source, tuple) else "a program"
