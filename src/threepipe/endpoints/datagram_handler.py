"""The part of a datagram port that the native loop does not do itself: strangers, datagrams without a packet, errors.

The decisions and the messages are those of `DatagramPort`; this file converts the native core's addresses.
"""

import socket
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from threepipe.bundle import Bundle
from threepipe.core.ends import NativeEndpoint
from threepipe.core.ends import Way as NativeWay
from threepipe.endpoints.datagram_faults import OwnDatagrams
from threepipe.errors import LinkDown
from threepipe.net.datagrams import Source

__all__ = ["DatagramHandler", "Way"]


class Way(NamedTuple):
    """The destination of datagrams. Made by the thread that receives, and used by the one that sends."""

    peer: Source
    """None: the peer that the socket is connected to."""
    local: bytes | None = None
    """The local address that the peer sent to, from which it is answered; None if unknown or gone."""
    own: OwnDatagrams | None = None
    """The form of these datagrams as packets; None for sockets other than UDP's."""


class Port(Protocol):
    """The methods of a datagram port that are called here."""

    way: Way | None

    def valid(self, packets: Sequence[memoryview], source: Source, local: bytes | None) -> Sequence[memoryview]: ...

    def receive_failed(self, error: int) -> None: ...

    def send(self, bundle: Bundle, failed: int) -> Bundle: ...

    def warn_of_own(self) -> str: ...


class DatagramHandler:
    """The methods that the native loop calls, from threads of its own; one at a time for each direction."""

    def __init__(self, port: Port) -> None:
        self._port = port

    def way(self) -> NativeWay | None:
        """Return the destination. None: nobody has sent anything yet."""
        return None if (way := self._port.way) is None else _to_native(way)

    def receive(
        self, datagrams: bytearray, size: int, source: NativeEndpoint | None, local: bytes | None
    ) -> tuple[Sequence[memoryview], NativeWay | None]:
        """Receive datagrams of one source, each of `size` bytes but a shorter last one."""
        memory = memoryview(datagrams)
        received = [memory[start : start + size] for start in range(0, len(memory), size)]
        packets = self._port.valid(received, None if source is None else _from_native(source), local)
        return packets, self.way()

    def receive_failed(self, error: int) -> None:
        """Handle the errno of receiving."""
        self._port.receive_failed(error)

    def send(self, packets: Sequence[bytearray], error: int) -> tuple[int, int]:
        """Send packets, the first of which could not be sent for the errno `error`."""
        try:
            rest = self._port.send(Bundle.of_views([memoryview(packet) for packet in packets]), error)
        except LinkDown:
            return 0, len(packets)
        return len(packets) - len(rest), 0

    def dropped_own(self) -> None:
        """Handle that the socket's own datagrams came as packets to send, and were dropped."""
        self._port.warn_of_own()


def _to_native(way: Way) -> NativeWay:
    peer = None
    if way.peer is not None:
        host, port, *others = way.peer
        family = socket.AF_INET if not others else socket.AF_INET6
        peer = socket.inet_pton(family, host.partition("%")[0]), port, others[-1] if others else 0
    return NativeWay(peer, way.local, None if way.own is None else way.own.key_and_offsets)


def _from_native(endpoint: NativeEndpoint) -> Source:
    """Return the address as the socket module has it."""
    address, port, scope = endpoint
    if len(address) == 4:
        return socket.inet_ntop(socket.AF_INET, address), port
    return socket.inet_ntop(socket.AF_INET6, address), port, 0, scope
