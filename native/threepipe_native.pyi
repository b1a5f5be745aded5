"""The native core: what runs for every packet, by the names and with the results of its reference.

The reference is the text to read: `threepipe.packet`, `offload`, `coalesce`, `descriptor`, and for `pump`
the loop of `threepipe.pipe`. Two differences: records and packets may be any C-contiguous buffers of
single bytes, and loops over packets and system calls run without the GIL.
"""

import array
import io
from collections.abc import Sequence
from typing import Protocol

from threepipe.packet import Packet

class HasFileno(Protocol):
    def fileno(self) -> int: ...

def internet_checksum(data: Packet, initial: int = 0) -> int:
    """`threepipe.packet.internet_checksum`; `initial` has at most 64 bits."""

def measure(records: Sequence[memoryview]) -> tuple[int, int, bool]:
    """`threepipe.offload.measure`."""

def split(records: Sequence[memoryview]) -> list[memoryview]:
    """`threepipe.offload.split`: the packets of all superpackets of a call share one new buffer."""

def coalesce(packets: Sequence[memoryview], headed: bool, udp: bool) -> list[memoryview]:
    """`threepipe.coalesce.coalesce`: all new records of a call share one new buffer."""

def receive(file: io.FileIO, memory: memoryview, limit: int) -> list[memoryview]:
    """`threepipe.descriptor.receive`."""

def send(file: io.FileIO, records: Sequence[memoryview]) -> tuple[int, int]:
    """`threepipe.descriptor.send`."""

def pump(
    sources: Sequence[HasFileno],
    target: HasFileno,
    bells: Sequence[HasFileno],
    received: array.array[int],
    sent: array.array[int],
    headed: bool,
    coalescing: bool,
    udp: bool,
) -> tuple[int, bool, bool]:
    """Move what the descriptors `sources` have to `target` until one of `bells` is readable; blocks, without the GIL.

    All descriptors are non-blocking. Every record is one packet, or with `headed` one with a virtio header.
    `received` counts packets, bytes and bundles; `sent` the same and dropped packets: arrays of typecode "Q",
    3 and 4 long, added to as it happens. While the target has no room the packets wait for it; while its link is
    down they are dropped. What is no IP packet is dropped. Where `coalescing`, bundles are coalesced, until
    the target refuses such a record (EINVAL): it is then split and written again.

    Returns the errno of what ended it, or 0 for a bell; whether that came of the target; and whether the target
    still takes superpackets.
    """
