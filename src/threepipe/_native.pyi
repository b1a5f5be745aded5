"""The native core: the functions and classes that run for every packet, with the names and results of their reference.

The reference is Python: `packet`, `ecn`, `flow`, `gatherer`, `superpacket`, `coalesce`, `transport`, `rings`,
`descriptor` and `sender` in `threepipe.core`. Records and packets may be any C-contiguous buffers of single bytes here.
System calls, and loops over more than a few packets, run without the GIL. A record that is too short for its virtio
header raises ValueError.

`receive`, `receive_packets`, `send`, `send_coalesced`, `PacketSender` and `pump` exist on POSIX, `Router` on Linux. All
classes are thread-safe.
"""

import io
from collections.abc import Sequence

from threepipe.core.ends import End, HasFileno
from threepipe.core.flow import FlowFields
from threepipe.core.gatherer import Gatherer as Gatherer
from threepipe.core.packet import Packet
from threepipe.core.rings import Rings
from threepipe.core.sender import PacketSender as PacketSender
from threepipe.core.transport import Traffic as Traffic
from threepipe.core.transport import Transport as Transport

VERSION: str
"""The version of threepipe that it was built with."""

KINDS_OF_ENDS: str
"""The kinds of ends that `pump` knows on this system, with spaces between them."""

def internet_checksum(data: Packet, initial: int = 0) -> int:
    """Do as `threepipe.core.packet.internet_checksum`. `initial` has at most 64 bits."""

def flow_fields(packet: Packet) -> FlowFields | None:
    """Do as `threepipe.core.flow.flow_fields`."""

def measure(records: Sequence[Packet], vnet_header: bool = True) -> tuple[int, int, bool]:
    """Do as `threepipe.core.superpacket.measure`."""

def split(records: Sequence[memoryview]) -> list[memoryview]:
    """Do as `threepipe.core.superpacket.split`. The packets of all superpackets of a call share one buffer.

    Once nothing refers to it any more, the buffer may be used for later results; it may be longer than the packets.
    """

def extract(records: Sequence[memoryview]) -> list[bytes]:
    """Do as `threepipe.core.superpacket.extract`, without writing to the records."""

def coalesce(packets: Sequence[memoryview], vnet_header: bool, udp: bool) -> list[memoryview]:
    """Do as `threepipe.core.coalesce.coalesce`. All new records of a call share one new buffer."""

def combine_ecn(packets: Sequence[memoryview], outer: int) -> list[memoryview]:
    """Do as `threepipe.core.ecn.combine_ecn`."""

class Router:
    """The peers of a WireGuard device, by number, as far as forwarding packets and messages needs them.

    `threepipe.wireguard.routing` keeps it up to date with `threepipe.wireguard.tunnel`, also while a pump uses it.
    """

    def __init__(self, next_hops: bool) -> None:
        """With `next_hops`, peers are found by those that `set_next_hops` has told, in place of allowed IPs."""

    def set_mtu(self, mtu: int) -> None:
        """Set the bytes beyond which packets are not padded; 0 for no limit."""

    def set_peer(
        self,
        number: int,
        traffic: Traffic,
        endpoint: tuple[bytes, int, int] | None,
        local: bytes | None,
        sending: tuple[Transport, float, float] | None,
        receiving: Sequence[tuple[Transport, float, float]],
    ) -> None:
        """Add a peer, or replace it.

        `endpoint` is an address, a port and a scope. `local` is the local address to send from; without it, the address
        that the peer last sent to is kept. A keypair is its transport, the time when it expires, and the time of use
        from which the handler is told; times are those of `threepipe.wireguard.clock`.
        """

    def set_allowed(self, number: int, networks: Sequence[tuple[bytes, int]], link_local: bytes | None) -> None:
        """Give networks, by address and prefix length, to a peer in place of those it has; take them from others.

        With next hops they are the networks that it may send from, as from its `link_local` address, and others keep
        theirs.
        """

    def set_next_hops(self, changed: Sequence[tuple[bytes, int]], learned: Sequence[tuple[bytes, int]]) -> None:
        """Forget the next hops of destinations in the networks `changed`; then note those in `learned`.

        These are the key of `threepipe.wireguard.next_hops.NextHops.find`, and the number of a peer.
        """

    def remove_peer(self, number: int) -> None:
        """Remove a peer but keep its networks: packets to them go to the handler."""

    def rejected(self) -> list[tuple[str, int, int]]:
        """Return what was dropped so far: reason, errno or 0, count."""

def ring_receive(rings: Rings, memory: memoryview, limit: int) -> tuple[list[memoryview], int, int]:
    """Do as `threepipe.core.rings.ring_receive`, without copying the headers between packets.

    It keeps the GIL, as `ring_send` does: no call waits.
    """

def ring_send(rings: Rings, packets: Sequence[Packet]) -> tuple[int, int]:
    """Do as `threepipe.core.rings.ring_send`, but check all packets before the first is allocated."""

def receive(file: io.FileIO, memory: memoryview, limit: int, wide: bool = False) -> list[memoryview]:
    """Do as `threepipe.core.descriptor.receive`."""

def receive_packets(
    file: io.FileIO, memory: memoryview, limit: int, vnet_header: bool, wide: bool = False
) -> list[bytes]:
    """Do as `threepipe.core.descriptor.receive_packets`."""

def send(file: io.FileIO, records: Sequence[memoryview], wide: bool = False) -> tuple[int, int]:
    """Do as `threepipe.core.descriptor.send`."""

def send_coalesced(
    file: io.FileIO, packets: Sequence[Packet], vnet_header: bool, udp: bool, wide: bool = False
) -> tuple[Sequence[memoryview], int, int]:
    """Do as `threepipe.core.descriptor.send_coalesced`, without copying the packets that are sent."""

def pump(left: End, right: End, bells: Sequence[HasFileno]) -> tuple[int, End | None]:
    """Forward both ways between two ends until a bell is readable, with two threads and duplicates of the descriptors.

    Return 0 and None for a bell, else the errno and the end that failed, which is a `TunEnd` if one of the two is. A
    TUN device that hung up fails with EPIPE once it is empty. Raise what a handler raises. Raise TypeError unless
    `threepipe.core.ends.joinable` is true of the ends.

    Bundles to a `TunEnd` that is coalescing are coalesced. One that refuses a superpacket has `coalescing` set to False
    when the pump returns, and gets packets from then on. Packets to an adapter whose link is down are dropped. Records
    that wait for room when the pump returns are added to the target's `kept`, and not counted as sent or dropped.
    """
