"""The network side of kernel adapters, for the conformance suite."""

import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import threepipe
from tests.support.kernel import Network
from threepipe.testing import Wire

assert sys.platform == "linux"

ETH_P_ALL = 3
ETH_P_IP = {4: 0x0800, 6: 0x86DD}
PACKET_HOST = 0


class PacketWire:
    """A packet socket on the interface, which sends and receives exactly the bytes that pass it."""

    def __init__(self, adapter: threepipe.Adapter, network: Network, *, persistent: bool) -> None:
        self.persistent = persistent
        self._name = adapter.name
        self._network = network
        self.socket = network.namespace.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)  # As large as the kernel allows.
        self.socket.bind((adapter.name, ETH_P_ALL))

    def send(self, packets: Sequence[bytes]) -> int:
        for number, packet in enumerate(packets):
            try:
                self.socket.sendto(packet, socket.MSG_DONTWAIT, (self._name, ETH_P_IP[packet[0] >> 4]))
            except BlockingIOError:  # After Linux 7.2 a full ring lets senders wait.
                return number
        return len(packets)

    def receive(self, timeout: float) -> list[bytes]:
        packets: list[bytes] = []
        self.socket.settimeout(timeout)
        try:
            while not packets:
                data, address = self.socket.recvfrom(65536)
                if address[2] == PACKET_HOST:
                    packets.append(data)
        except (TimeoutError, BlockingIOError):
            pass
        return packets

    def adapter_exists(self) -> bool:
        return self._name in [found.name for found in threepipe.adapters(self._network.path)]


@contextmanager
def wired(
    network: Network, make: Callable[[], threepipe.Adapter], *, persistent: bool
) -> Iterator[tuple[threepipe.Adapter, Wire]]:
    """Return an adapter in `network` and its wire; remove a persistent one at the end."""
    with make() as adapter:
        wire = PacketWire(adapter, network, persistent=persistent)
        with wire.socket:
            yield adapter, wire
    if persistent:
        threepipe.Adapter.open(adapter.name, netns=network.path).delete()
