"""Seen: packets that were looked at, which way they went and when. Pure data, and what gives and takes it."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from threepipe.core.packet import Packet

__all__ = ["INBOUND", "OUTBOUND", "UNKNOWN", "Seen", "Sink", "Source"]

# The lowest two bits of pcapng's epb_flags (draft-ietf-opsawg-pcapng, section 4.3.1).
UNKNOWN, INBOUND, OUTBOUND = 0, 1, 2


class Seen(NamedTuple):
    """Packets that went one way in one moment, in order."""

    direction: int
    """From the adapter's side, as other captures tell it: what the system sends is outbound."""
    packets: Sequence[Packet]
    time_ns: int
    """Nanoseconds since 1970, as `time.time_ns` counts them."""


Sink: TypeAlias = Callable[[Seen], None]
"""Is called from several threads, and keeps no packet: their memory is somebody else's afterwards."""


class Source(Protocol):
    """Something that goes on and can be looked at: a running pipe, an adapter."""

    @property
    def name(self) -> str: ...

    @property
    def dropped(self) -> int:
        """Packets that were not seen since there was no room for them, as far as is known."""

    def __iter__(self) -> Iterator[list[Seen]]:
        """What is seen, as it comes, until `stop` is called or it ends. Raises `ThreepipeError`."""

    def stop(self) -> None:
        """End the iteration, after what was seen until now; from another thread or a signal handler."""

    def close(self) -> None: ...
