"""The native core: what runs for every packet, by the names and with the results of its reference.

The reference is the text to read: `threepipe.packet`, `offload`, `coalesce`, `sealing`, `exchange`, `descriptor` and
`pump`. Two differences: records and packets may be any C-contiguous buffers of single bytes, and system calls, and
loops over more than a few packets, run without the GIL. A record without a whole header is a ValueError.

`receive`, `send` and `pump` are there where there are POSIX descriptors.
"""

import io
from collections.abc import Sequence

from threepipe.exchange import Rings
from threepipe.packet import Packet
from threepipe.pump import End, HasFileno

def internet_checksum(data: Packet, initial: int = 0) -> int:
    """`threepipe.packet.internet_checksum`; `initial` has at most 64 bits."""

def measure(records: Sequence[memoryview], headed: bool = True) -> tuple[int, int, bool]:
    """`threepipe.offload.measure`."""

def split(records: Sequence[memoryview]) -> list[memoryview]:
    """`threepipe.offload.split`: the packets of all superpackets of a call share one new buffer."""

def coalesce(packets: Sequence[memoryview], headed: bool, udp: bool) -> list[memoryview]:
    """`threepipe.coalesce.coalesce`: all new records of a call share one new buffer."""

def seal(
    key: bytes | bytearray, index: int, counter: int, records: Sequence[memoryview], headed: bool, mtu: int
) -> list[tuple[memoryview, int]]:
    """`threepipe.sealing.seal`: all runs of a call share one new buffer."""

def unseal(
    key: bytes | bytearray, index: int, window: bytearray, memory: memoryview, size: int
) -> tuple[list[memoryview], list[tuple[bytes, int]], int, int, int]:
    """`threepipe.sealing.unseal`."""

def take(rings: Rings, memory: memoryview, limit: int) -> tuple[list[memoryview], int, int]:
    """`threepipe.exchange.take`, without headers in between. It keeps the GIL, as `give` does: no call waits."""

def give(rings: Rings, packets: Sequence[memoryview]) -> tuple[int, int]:
    """`threepipe.exchange.give`, which looks at all packets before it asks for places."""

def receive(file: io.FileIO, memory: memoryview, limit: int) -> list[memoryview]:
    """`threepipe.descriptor.receive`."""

def send(file: io.FileIO, records: Sequence[memoryview]) -> tuple[int, int]:
    """`threepipe.descriptor.send`."""

def pump(left: End, right: End, bells: Sequence[HasFileno], headed: bool, udp: bool) -> tuple[int, End | None]:
    """`threepipe.pump.pump`, with a thread for each direction, and descriptors of its own while it runs.

    A source that hung up, with nothing left to be read, is an end of it: EPIPE.
    """
