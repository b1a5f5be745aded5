"""Device and Port: what a platform gives the contract, and the data they speak in. Pure types.

A platform makes devices (`platforms/__init__.py` names its functions); `Adapter` and `Session` own
all that systems have in common: checks, locks, waiting, closing, counting.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from threepipe.bundle import Bundle
from threepipe.core.packet import Packet
from threepipe.core.pump import Loan
from threepipe.net.watch import Watch
from threepipe.settings import Address, Network

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


__all__ = [
    "INBOUND",
    "OUTBOUND",
    "UNKNOWN",
    "AdapterInfo",
    "AdapterStatistics",
    "Counts",
    "Device",
    "EndpointPort",
    "Finding",
    "Port",
    "Seen",
    "Sink",
    "Source",
    "Waitable",
]

Counts: TypeAlias = "array[int]"
"""Of a direction: packets, bytes, bundles and, where it sends, dropped packets; of typecode Q."""


class AdapterStatistics(NamedTuple):
    """What the operating system counted on an adapter, named from the program as sessions do."""

    received_packets: int = 0
    received_bytes: int = 0
    received_dropped: int = 0
    """Packets the system had for the program, and dropped: the ring was full, or no session open."""
    sent_packets: int = 0
    sent_bytes: int = 0
    sent_dropped: int = 0
    """Packets the program sent that the system then dropped."""


class AdapterInfo(NamedTuple):
    """An adapter as the operating system describes it at one moment."""

    name: str
    index: int  # type: ignore[assignment]  # It hides a method of tuples that nobody misses here.
    mtu: int
    link_up: bool
    persistent: bool = False
    owner: int | None = None
    group: int | None = None
    addresses: tuple[Address, ...] = ()
    routes: tuple[Network, ...] = ()
    statistics: AdapterStatistics = AdapterStatistics()
    luid: int | None = None
    """The NET_LUID that Windows knows it by, as a number."""


class Waitable(Protocol):
    """Something to wait for, like a `Doorbell`."""

    def fileno(self) -> int:
        """A descriptor that is readable while it is set, on Windows perhaps an event's handle.

        Raises `OSError` where there is none.
        """

    def wait(self, timeout: float | None) -> None:
        """Return when it is set, or after `timeout` seconds (None: never); perhaps earlier."""

    def notify(self, loop: "AbstractEventLoop", callback: Callable[[], None]) -> Callable[[], None]:
        """Have `loop` call `callback` when it is set, perhaps earlier and more than once.

        To be called in that loop; and so is what it returns, which takes it back.
        """


class Port(Protocol):
    """What a platform gives a session. Calls of one direction never overlap.

    `receive` and `send` do not block. `readable` and `writable` are set while there may be
    something for them to do, and for ever once `wake` was called.
    """

    @property
    def readable(self) -> Waitable: ...
    @property
    def writable(self) -> Waitable: ...

    def receive(self, limit: int) -> Bundle:
        """What is ready, up to `limit` records, or an empty bundle; for a limit of 1, one packet of it.

        Raises `AdapterGone`.
        """

    def send(self, bundle: Bundle) -> Bundle:
        """Hand over valid packets, return those there was no room for. Raises `AdapterGone`, `LinkDown`.

        It raises only where none was accepted.
        """

    def pump(self, other: "Port", counts: tuple[Counts, Counts], other_counts: tuple[Counts, Counts]) -> bool:
        """Move all that comes both ways until one of the two is woken or interrupted; False where this pair cannot.

        For platforms that have a shorter way than bundles. The counts are of what each received and sent, as
        `Session` counts. Packets on their way when it returns are dropped, and counted. Raises `AdapterGone`.
        """

    def join(self, loan: "Loan", counts: tuple[Counts, Counts]) -> bool:
        """What `pump` of another port asks, which lends its descriptors: to do it, or False."""

    def interrupt(self) -> None:
        """Have `pump` return, the one that runs now or the next one."""

    def wake(self) -> None:
        """Wake every waiter, now and later; called once, before `stop`."""

    def stop(self) -> None:
        """Take the link down; called once, when nobody is in `receive` or `send`."""

    def dispose(self) -> None:
        """Close what is waited on; called once, when nobody waits any more."""


class Device(Protocol):
    """What a platform gives an adapter. Only `close` may be called more than once."""

    name: str
    index: int

    def info(self) -> AdapterInfo:
        """The interface as it is now. Raises `AdapterGone`."""

    def set_mtu(self, mtu: int) -> None: ...

    def start(self, capacity: int) -> Port:
        """Take the link up, for a session that buffers about `capacity` bytes towards the program."""

    def unpersist(self) -> None:
        """See that the interface goes when the device is closed."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """`name`: what was looked at; `ok`: whether it is there; `detail`: what was seen, in a sentence."""

    name: str
    ok: bool
    detail: str
    advice: str = ""
    """What to do about a lack, or to get more than there is."""
    essential: bool = False
    """Whether adapters cannot be made without it."""


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


class EndpointPort:
    """A `Port` without a shorter way than bundles; its kinds add `receive`, `send` and `stop`."""

    def __init__(self) -> None:
        self.readable = Watch()
        self.writable = Watch()

    def pump(self, other: Port, counts: tuple[Counts, Counts], other_counts: tuple[Counts, Counts]) -> bool:
        return False

    def join(self, loan: Loan, counts: tuple[Counts, Counts]) -> bool:
        return False

    def interrupt(self) -> None:
        """Nothing: there is no `pump` to be interrupted."""

    def wake(self) -> None:
        self.readable.ring(for_ever=True)
        self.writable.ring(for_ever=True)

    def dispose(self) -> None:
        self.readable.close()
        self.writable.close()
