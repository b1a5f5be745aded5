"""Single packets: the short way of ports that have none, and the queue in which packets wait for `receive_packet`.

Several threads may take packets from a queue without a lock. Each packet goes to one of them.
"""

from collections import deque
from functools import partial

from threepipe.backend import Port
from threepipe.bundle import Bundle
from threepipe.core.ends import BUNDLES, BYTES, PACKETS, Counts

__all__ = ["ByBundles", "count", "popped", "taken"]


class ByBundles:
    """A `PacketPort` and `SinglePort` on a port that knows only bundles."""

    def __init__(self, port: Port) -> None:
        self._port = port

    def receive_packets(self) -> list[bytes]:
        return self._port.receive().copies()

    def send_packet(self, packet: bytes) -> bool:
        return not self._port.send(Bundle([packet]))


def popped(ready: deque[bytes]) -> bytes:
    """Take the first packet; return empty bytes if there is none."""
    try:
        return ready.popleft()
    except IndexError:
        return b""


def taken(ready: deque[bytes]) -> list[bytes]:
    """Take all packets."""
    return list(iter(partial(popped, ready), b""))


def count(counts: Counts, packets: int, size: int, bundles: int) -> None:
    """Add to `counts`, or subtract from them. `size` is in bytes."""
    counts[PACKETS] += packets
    counts[BYTES] += size
    counts[BUNDLES] += bundles
