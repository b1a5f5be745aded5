"""DatagramPort: a session's packets as datagrams, one packet in each, from and to one peer.

Linux's Foo-over-UDP and socat with a TUN device use the same format. Several datagrams pass in one system call
where the platform can do it. Knows no host names.
"""

import errno
import selectors
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from threepipe.bundle import Arena, Bundle
from threepipe.core import fast
from threepipe.core.descriptor import FULL, MAX_BUNDLE
from threepipe.core.ends import DatagramsEnd, End
from threepipe.core.packet import SHORTEST, is_packet
from threepipe.core.superpacket import MAX_RECORD
from threepipe.endpoints.datagram_faults import OwnDatagrams, not_a_packet, undeliverable
from threepipe.endpoints.datagram_handler import DatagramHandler, Way
from threepipe.endpoints.request import RateLimitedLog
from threepipe.errors import LinkDown
from threepipe.net.datagrams import Datagrams, Source
from threepipe.net.watch import EndpointPort

__all__ = ["DatagramPort"]

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_MAX_ATTEMPTS = 3  # Calls to send one datagram; a call may fail with the error of an earlier datagram instead.


class DatagramPort(EndpointPort):
    """A port on a datagram socket, with a short way for single packets.

    With a peer given, datagrams go to it from whatever address this machine has at the time. If `listening`, they go
    to the last sender, from the address to which it sent. Otherwise the socket is connected.
    """

    def __init__(
        self, datagrams: Datagrams, log: RateLimitedLog, *, listening: bool = False, peer: Source = None
    ) -> None:
        super().__init__()
        self._datagrams = datagrams
        self._is_ip = datagrams.socket.family in _FAMILIES
        self._log = log
        self._listening = listening
        self._only = peer
        """The only source of packets, if the socket is neither listening nor connected."""
        self.way = None if listening else self._way_to(peer)
        """The present destination; None until somebody has sent a packet."""
        self._strangers = listening or peer is not None
        """True if datagrams may have other sources than the peer."""
        self._memory = memoryview(b"")  # For `receive_once`, which allocates it.
        self._failed: int | None = None
        """The errno with which `send_packet` could not send the packet that `send` gets next."""
        self._arena = Arena()
        if listening:
            datagrams.report_local_addresses()
        elif peer is not None:
            datagrams.report_errors()
        self.lent: DatagramsEnd | None = None
        if not datagrams.has_end and (self._is_ip or not listening):
            self.lent = DatagramsEnd(datagrams.socket, DatagramHandler(self))
        self.readable.watch(datagrams.socket, selectors.EVENT_READ)
        self.writable.watch(datagrams.socket, selectors.EVENT_WRITE)

    def _way_to(self, peer: Source, local: bytes | None = None) -> Way:
        bound = self._datagrams.socket
        own = None
        if self._is_ip:
            own = OwnDatagrams(bound.getsockname()[1], peer or bound.getpeername())
        return Way(peer, local, own)

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Begin with the destination of the port that returned `state`."""
        if state["peer"] is not None:
            self.way = self._way_to(tuple(state["peer"]), bytes.fromhex(state["local"]) or None)

    def state(self) -> tuple[dict[str, Any], Sequence[int]]:
        """Return the destination, for JSON, and the socket's descriptor."""
        peer, local = (None, None) if self.way is None else (self.way.peer, self.way.local)
        return {"peer": peer, "local": (local or b"").hex()}, [self._datagrams.socket.fileno()]

    def give_away(self) -> None:
        """Do nothing: the socket is open as long as one of both processes has it."""

    def claim(self) -> None:
        """Do nothing."""

    def lose(self) -> None:
        """Do nothing: a datagram is whole, or lost."""

    def receive(self) -> Bundle:
        """Return the IP packets of the datagrams that are ready."""
        packets: list[memoryview] = []
        memory = self._arena.free()
        # Bounded by reads, not packets: a flood of invalid datagrams must not starve others.
        for read in range(MAX_BUNDLE):
            if len(packets) >= MAX_BUNDLE or (read and len(memory) < MAX_RECORD * 2):
                break  # Stop while the arena has room; replacing it for one more read costs more.
            try:
                received, used, source = self._datagrams.receive(memory, MAX_BUNDLE - len(packets))
            except BlockingIOError:
                if not read:
                    self._datagrams.forget_errors()  # They wake waiters, too.
                break
            except OSError as error:
                self._warn_of(error.errno or 0)
                break
            if used:  # An empty datagram is a probe, whether somebody is there.
                self._arena.take(used)
                memory = memory[used:]
                packets += self.valid(received, source, self._datagrams.received_local)
        return Bundle.of_views(packets)

    def receive_once(self) -> Sequence[bytes]:
        """Return copies of the IP packets that one read gives."""
        datagrams, memory = self._datagrams, self._memory
        if datagrams.has_end:
            return ()
        if not memory:
            self._memory = memory = memoryview(bytearray(MAX_RECORD))
        try:
            used, size, source = datagrams.receive_run(memory)
        except BlockingIOError:
            return ()
        except OSError as error:
            self._warn_of(error.errno or 0)
            return ()
        way, local = self.way, datagrams.received_local
        if used == size and way is not None and way.local == local and (way.peer == source or not self._strangers):
            packet = memory[:used].tobytes()
            if packet and SHORTEST[packet[0]] <= used:  # As nearly always.
                return (packet,)
        received = [memory[start : min(start + size, used)] for start in range(0, used, max(size, 1))]
        return [packet.tobytes() for packet in self.valid(received, source, local)] if received else ()

    def receive_packets(self) -> list[bytes]:
        """Return copies of the packets that are ready."""
        return self.receive().copies()

    def receive_failed(self, error: int) -> None:
        """Handle an errno of receiving, which may be that of a datagram sent before."""
        self._datagrams.forget_errors()
        self._warn_of(error)

    def _warn_of(self, error: int) -> None:
        if error != errno.EMSGSIZE:  # Sending the next packet of that size reports it again.
            self._log.warn("unreachable", f"packets cannot be delivered: {undeliverable(error)}")

    def valid(self, packets: Sequence[memoryview], source: Source, local: bytes | None) -> Sequence[memoryview]:
        """Return those that are IP packets of the peer, and make their source the peer if listening."""
        if self._only is not None and source != self._only:
            self._refuse(source)
            return ()
        _, _, valid = fast.measure(packets, vnet_header=False)
        if not valid:
            wrong = next(packet for packet in packets if not is_packet(packet))
            self._log.warn("no packet", f"{_name(source)} sent {not_a_packet(wrong)}")
            packets = [packet for packet in packets if is_packet(packet)]
        if packets and self._listening:
            way = self.way
            if way is None or way.peer != source:
                self._log.info(f"{_name(source)} is the peer now")
                self.way = self._way_to(source, local)
            elif way.local != local:
                self.way = way._replace(local=local)
        return packets

    def _refuse(self, source: Source) -> None:
        """Explain the datagram of a stranger if it is the peer by another address; ignore other datagrams."""
        if source[1] == self._only[1]:
            self._log.warn(
                "stranger",
                f"{_name(source)} sent a datagram, and only those of {_name(self._only)} are taken; if both are one"
                " machine, have it answer from the address that is asked: bind its end to that address",
            )

    def send(self, bundle: Bundle, failed: int | None = None) -> Bundle:
        """Send the packets. Raise `LinkDown` if none can be sent, or if all are this socket's own datagrams.

        `failed` is the errno of an attempt to send the first one.
        """
        if (way := self.way) is None:
            raise LinkDown(errno.EDESTADDRREQ, "no peer has sent a packet yet")
        failed, self._failed = self._failed if failed is None else failed, None
        packets = self._without_own(list(bundle), way.own)
        total = len(packets)
        self._datagrams.send_local = way.local
        for _ in range(_MAX_ATTEMPTS):
            if failed is None:
                sent, error = self._datagrams.send(packets, way.peer)
                packets = packets[sent:]
            else:
                error, failed = failed, None
                self._datagrams.forget_errors()
            if error in FULL:
                break
            if error == errno.EMSGSIZE:
                self._allow_fragments(len(packets[0]), way.peer)
            else:
                self._log.warn("unreachable", f"packets cannot be delivered: {undeliverable(error)}")
        if error not in FULL and len(packets) == total:
            raise LinkDown(error, f"the datagrams cannot be sent: {undeliverable(error)}")
        return Bundle.of_views(packets)

    def send_packet(self, packet: bytes) -> bool:
        """Send one packet; have `send` go on if that fails."""
        way = self.way
        if way is None or (way.own is not None and way.own.include(packet)):
            return False
        self._datagrams.send_local = way.local
        try:
            self._datagrams.send_one(packet, way.peer)
        except BlockingIOError:
            return False
        except OSError as error:
            self._failed = error.errno
            return False
        return True

    def _without_own(self, packets: list[memoryview], own: OwnDatagrams | None) -> list[memoryview]:
        """Drop the datagrams of this socket that a route sent into the tunnel; they would go in a circle for ever."""
        if own is None or len(others := own.without(packets)) == len(packets):
            return packets
        text = self.warn_of_own()
        if not others:
            raise LinkDown(errno.ELOOP, text)
        return others

    def warn_of_own(self) -> str:
        """Explain that the socket's own datagrams are dropped, and return the text."""
        way = self.way
        assert way is not None  # They are known by their destination.
        own = way.own
        assert own is not None
        text = (
            f"the datagrams to {own.host} port {own.port} come back to be sent again, because a route leads them into"
            f" the tunnel; they are dropped: route {own.host} around the tunnel, or use mark= or interface= (see 'All"
            " traffic' in docs/pipe.md)"
        )
        self._log.warn("loop", text)
        return text

    def lend(self) -> End | None:
        """Lend the socket, unless it has an end or senders without an IP address."""
        return self.lent

    def _allow_fragments(self, size: int, peer: Source) -> None:
        if room := self._datagrams.room(peer):
            limit, advice = f"datagrams of {room} bytes, the most that this path takes whole", f"set mtu={room}"
        else:
            limit, advice = "one datagram on this path", "set a smaller mtu="
        text = (
            f"packets of {size} bytes do not fit in {limit}; they go in fragments, which is slow and loses more packets"
        )
        self._log.warn("room", f"{text}: {advice} on the adapters of both ends")
        self._datagrams.allow_fragments()

    def stop(self) -> None:
        self._datagrams.socket.close()


def _name(source: Source) -> str:
    return f"{source[0]} port {source[1]}" if isinstance(source, tuple) else "a program"
