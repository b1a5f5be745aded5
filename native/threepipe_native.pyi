"""The native core: what runs for every packet, by the names and with the results of its reference.

The reference is the text to read: `packet`, `superpacket`, `coalesce`, `transport`, `rings`, `descriptor` and
`pump`. Two differences: records and packets may be any C-contiguous buffers of single bytes, and system calls, and
loops over more than a few packets, run without the GIL. A record without a whole header is a ValueError.

`receive`, `send` and `pump` are there where there are POSIX descriptors. `Transport` and `Traffic` are classes of the
core's own, with the methods and attributes of their reference, and may be used by several threads at once.
"""

import io
from array import array
from collections.abc import Sequence

from threepipe.core.packet import Packet
from threepipe.core.pump import End, HasFileno
from threepipe.core.rings import Rings
from threepipe.core.transport import Traffic as Traffic
from threepipe.core.transport import Transport as Transport
from threepipe.wireguard.routing import Handed

def internet_checksum(data: Packet, initial: int = 0) -> int:
    """`threepipe.core.packet.internet_checksum`; `initial` has at most 64 bits."""

def measure(records: Sequence[Packet], headed: bool = True) -> tuple[int, int, bool]:
    """`threepipe.core.superpacket.measure`."""

def split(records: Sequence[memoryview]) -> list[memoryview]:
    """`threepipe.core.superpacket.split`: the packets of all superpackets of a call share one new buffer."""

def coalesce(packets: Sequence[memoryview], headed: bool, udp: bool) -> list[memoryview]:
    """`threepipe.core.coalesce.coalesce`: all new records of a call share one new buffer."""

class Router:
    """A WireGuard device's peers, by number, as far as passing packets and messages needs them. Linux only.

    `threepipe.wireguard.tunnel` is what it does the quick part of; `threepipe.wireguard.routing` keeps it up to date.
    Thread-safe, also while `run` runs.
    """

    def __init__(self) -> None: ...
    def set_mtu(self, mtu: int) -> None: ...
    def set_peer(
        self,
        number: int,
        traffic: Traffic,
        endpoint: tuple[bytes, int, int] | None,
        local: bytes | None,
        sending: tuple[Transport, float, float] | None,
        receiving: Sequence[tuple[Transport, float, float]],
    ) -> None:
        """Have a peer be as said. `endpoint`: address, port, scope; `local`: from which address here it is
        sent to, if not from the one it last sent to. A keypair: its transport, when it is over, and when
        to be told of its use (seconds of `time.monotonic`)."""

    def set_allowed(self, number: int, networks: Sequence[tuple[bytes, int]]) -> None:
        """Give networks, by address and prefix length, and nothing else, to a peer, whoever had them."""

    def remove_peer(self, number: int) -> None:
        """Forget a peer, but for its networks: what is for it goes up."""

    def rejected(self) -> list[tuple[str, int, int]]:
        """What was dropped so far: reason, errno or 0, how many."""

    def run(
        self,
        adapter: End,
        sockets: Sequence[HasFileno],
        counts: tuple[array[int], array[int]],
        bells: Sequence[HasFileno],
        headed: bool,
        udp: bool,
        above: Handed,
    ) -> int:
        """Pass packets and messages until a bell is readable; an errno of the adapter, or 0. With a thread for each
        direction, and descriptors of its own. Raises what `above` raises."""

def take(rings: Rings, memory: memoryview, limit: int) -> tuple[list[memoryview], int, int]:
    """`threepipe.core.rings.take`, without headers in between. It keeps the GIL, as `give` does: no call waits."""

def give(rings: Rings, packets: Sequence[Packet]) -> tuple[int, int]:
    """`threepipe.core.rings.give`, which looks at all packets before it asks for places."""

def receive(file: io.FileIO, memory: memoryview, limit: int) -> list[memoryview]:
    """`threepipe.core.descriptor.receive`."""

def send(file: io.FileIO, records: Sequence[memoryview]) -> tuple[int, int]:
    """`threepipe.core.descriptor.send`."""

def pump(left: End, right: End, bells: Sequence[HasFileno], headed: bool, udp: bool) -> tuple[int, End | None]:
    """`threepipe.core.pump.pump`, with a thread for each direction, and descriptors of its own while it runs.

    A source that hung up, with nothing left to be read, is an end of it: EPIPE.
    """
