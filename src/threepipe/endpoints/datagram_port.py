"""DatagramPort: a session's packets as datagrams, one packet in each, from and to one peer.

Linux's Foo-over-UDP and socat with a TUN device use the same format. Several datagrams pass in one system call
where the platform can do it. Knows no host names.
"""

import errno
import selectors
from collections.abc import Sequence

from threepipe.bundle import Arena, Bundle
from threepipe.core import fast
from threepipe.core.descriptor import FULL, MAX_BUNDLE
from threepipe.core.packet import is_packet
from threepipe.core.superpacket import MAX_RECORD
from threepipe.endpoints.request import RateLimitedLog
from threepipe.errors import LinkDown
from threepipe.net.datagrams import Datagrams, Source
from threepipe.net.watch import EndpointPort

__all__ = ["DatagramPort"]

_NO_LISTENER = "nothing listens there (yet)"
_UNREACHABLE = {errno.ECONNREFUSED: _NO_LISTENER, errno.ECONNRESET: _NO_LISTENER}  # The latter on Windows.
_MAX_ATTEMPTS = 3  # Calls to send one datagram; a call may fail with the error of an earlier datagram instead.


class DatagramPort(EndpointPort):
    """A port on a datagram socket. The peer is the one it is connected to or, if `listening`, the last sender."""

    def __init__(self, datagrams: Datagrams, log: RateLimitedLog, *, listening: bool) -> None:
        super().__init__()
        self._datagrams = datagrams
        self._log = log
        self._listening = listening
        self._peer: Source = None
        self._arena = Arena()
        self.readable.watch(datagrams.socket, selectors.EVENT_READ)
        self.writable.watch(datagrams.socket, selectors.EVENT_WRITE)

    def receive(self) -> Bundle:
        """Return the IP packets of the datagrams that are ready."""
        packets: list[memoryview] = []
        # Bounded by reads, not packets: a flood of invalid datagrams must not starve others.
        for _ in range(MAX_BUNDLE):
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
        """Return those that are IP packets, and make their source the peer if listening."""
        _, _, valid = fast.measure(packets, vnet_header=False)
        if not valid:
            self._log.warn("no packet", f"{_name(source)} sent a datagram that is not an IP packet")
            packets = [packet for packet in packets if is_packet(packet)]
        if packets and self._listening and source != self._peer:
            self._log.info(f"{_name(source)} is the peer now")
            self._peer = source
        return packets

    def send(self, bundle: Bundle) -> Bundle:
        if self._listening and self._peer is None:
            raise LinkDown(errno.EDESTADDRREQ, "no peer has sent a packet yet")
        packets, total = list(bundle), len(bundle)
        for _ in range(_MAX_ATTEMPTS):
            sent, error = self._datagrams.send(packets, self._peer)
            packets = packets[sent:]
            if error in FULL:
                return Bundle.of_views(packets)
            if error == errno.EMSGSIZE:
                self._allow_fragments(len(packets[0]))
            else:
                self._unreachable(error)
        if len(packets) == total:
            raise LinkDown(error, "the datagrams cannot be sent")
        return Bundle.of_views(packets)

    def _allow_fragments(self, size: int) -> None:
        room = self._datagrams.room(self._peer)
        self._log.warn(
            "room",
            f"packets of {size} bytes do not fit in datagrams of {room} bytes, the most that this path takes whole;"
            f" they go in fragments, which is slow and loses more packets: set mtu={room} on the adapters of both ends",
        )
        self._datagrams.allow_fragments()

    def _unreachable(self, error: int) -> None:
        reason = _UNREACHABLE.get(error, errno.errorcode.get(error, str(error)))
        self._log.warn("unreachable", f"packets cannot be delivered: {reason}")

    def stop(self) -> None:
        self._datagrams.socket.close()


def _name(source: Source) -> str:
    return f"{source[0]} port {source[1]}" if isinstance(source, tuple) else "a program"
