"""The types that a platform supplies to the contract, and the data that passes between them.

A platform makes devices (`platforms/__init__.py` names its functions) and ports. Endpoints that are not adapters make
ports too. `Adapter` and `Session` own all that systems have in common: checks, locks, waiting, closing, counting.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from threepipe.bundle import Bundle
from threepipe.core.ends import End
from threepipe.core.packet import Packet
from threepipe.settings import Address, Network

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = [
    "INBOUND",
    "OUTBOUND",
    "UNKNOWN",
    "AdapterInfo",
    "AdapterStatistics",
    "CapturedBundle",
    "Device",
    "Finding",
    "LateLender",
    "NextHops",
    "OncePort",
    "PacketPort",
    "PacketSender",
    "Port",
    "SenderPort",
    "SinglePort",
    "Sink",
    "Source",
    "Waitable",
]


class AdapterStatistics(NamedTuple):
    """The operating system's counts of an adapter, named from the program's side as in `SessionStatistics`."""

    received_packets: int = 0
    received_bytes: int = 0
    received_dropped: int = 0
    """Packets for the program that the system dropped: the ring was full, or no session open."""
    sent_packets: int = 0
    sent_bytes: int = 0
    sent_dropped: int = 0
    """Packets of the program that the system dropped."""


class AdapterInfo(NamedTuple):
    """An adapter as the operating system describes it at one moment."""

    name: str
    index: int  # type: ignore[assignment]  # It hides tuple.index, which has no use here.
    mtu: int
    link_up: bool
    persistent: bool = False
    owner: int | None = None
    group: int | None = None
    addresses: tuple[Address, ...] = ()
    routes: tuple[Network, ...] = ()
    statistics: AdapterStatistics = AdapterStatistics()
    luid: int | None = None
    """The NET_LUID by which Windows knows the adapter, as a number."""
    offload_left_on: bool = False
    """True if no program has this persistent adapter open, and one that was killed has left superpackets on (Linux).

    The next program that knows none sees packets with unfinished checksums, so that pings pass and TCP does not.
    Opening the adapter, or `threepipe adapter reset`, switches them off."""


class Waitable(Protocol):
    """Something to wait for, such as a `Doorbell`."""

    def fileno(self) -> int:
        """Return a descriptor that is readable while this is set; on Windows perhaps an event's handle.

        Raises `OSError` on systems without one.
        """

    def wait(self, timeout: float | None) -> None:
        """Wait until this is set, `timeout` seconds (None: forever) at most; perhaps return earlier."""

    def notify(self, loop: "AbstractEventLoop", callback: Callable[[], None]) -> Callable[[], None]:
        """Have `loop` call `callback` when this is set, perhaps earlier and more than once.

        Returns a function that cancels this. Call both in that loop.
        """

    def hold(self, held: bool) -> None:
        """Keep this set while `held`: the session has packets of the port that it has not handed out yet."""


class Port(Protocol):
    """A session's traffic. Calls of one direction never overlap, and neither direction blocks."""

    @property
    def readable(self) -> Waitable:
        """Set while `receive` may have packets, and forever once `wake` was called."""

    @property
    def writable(self) -> Waitable:
        """Set while `send` may accept packets, and forever once `wake` was called. Never held."""

    def receive(self) -> Bundle:
        """Return the packets that are ready, about 256 records at most. Raises `AdapterGone`."""

    def send(self, bundle: Bundle) -> Bundle:
        """Accept valid packets and return those without room.

        Raises `AdapterGone` and `LinkDown`, but only if it accepted none.
        """

    def lend(self) -> End | None:
        """Return descriptors that the native loop may use in this port's place, until it calls their `release`."""

    def wake(self) -> None:
        """Wake every waiter, now and later. Called once, before `stop`."""

    def stop(self) -> None:
        """Take the link down. Called once, when no thread is in `receive` or `send`."""

    def dispose(self) -> None:
        """Close `readable` and `writable`. Called once, when no thread waits any more."""


@runtime_checkable
class LateLender(Protocol):
    """A port whose `lend` may return None now and an end later."""

    offer: Callable[[], None] | None
    """Called once, by `Port.receive`, when `lend` would return an end."""


class NextHops(Protocol):
    """The next hops of packets that leave by an interface, as the system's routes have them."""

    def find(self, destination: bytes, source: bytes) -> bytes | None:
        """Return the 16 bytes of the IPv6 address that packets go to next; None for none. Raises `OSError`.

        Addresses are 4 or 16 bytes; the source is empty for IPv4.
        """

    def changes(self) -> Sequence[Network] | None:
        """Wait for changes, and return the destinations that they concern; None once this is closed."""

    def add(self, destination: Network, next_hop: bytes, metric: int) -> None:
        """Route a network to the 16 bytes of a link-local IPv6 address, of IPv4 too. Raises `OSError`."""

    def remove(self, destination: Network, next_hop: bytes, metric: int) -> None:
        """Remove that route, unless it is gone. Raises `OSError`."""

    def close(self) -> None:
        """End `changes`. May be called again."""


class PacketSender(Protocol):
    """A way to send a packet without errors: `Port.send` can tell why a packet was not sent. Thread-safe."""

    @property
    def sent(self) -> tuple[int, int]:
        """The packets sent, and their bytes."""

    def send(self, packet: Packet) -> bool:
        """Send a packet if it is valid and there is room; return True if it was sent."""


@runtime_checkable
class PacketPort(Protocol):
    """A port with a short way to receive single packets; for the others, the session makes bundles of them."""

    def receive_packets(self) -> list[bytes]:
        """Return copies of the packets that are ready, as `Port.receive` does."""


@runtime_checkable
class SenderPort(Protocol):
    """A port with a sender, which is the shortest way to send single packets."""

    @property
    def sender(self) -> PacketSender | None:
        """None if this port has to be used. The sender must send nothing after `Port.stop`."""


@runtime_checkable
class SinglePort(Protocol):
    """A port with a short way to send single packets."""

    def send_packet(self, packet: bytes) -> bool:
        """Accept a valid packet, or return False if there is no room for it. Raises as `Port.send` does."""


@runtime_checkable
class OncePort(Protocol):
    """A port with a short way to receive a packet that comes alone."""

    def receive_once(self) -> Sequence[bytes]:
        """Return copies of the packets that one read gives. Raises nothing.

        Without packets, `Port.receive` has to look: what was read, and the errors, are there.
        """


class Device(Protocol):
    """An interface that a platform made or opened for an `Adapter`. Only `close` may be called more than once."""

    @property
    def name(self) -> str:
        """The interface's present name; after its end, the last one."""

    @property
    def index(self) -> int:
        """The interface's present index; after its end, the last one."""

    def info(self) -> AdapterInfo:
        """Return the interface's present state. Raises `AdapterGone`."""

    def set_mtu(self, mtu: int) -> None:
        """Set the MTU in bytes. Raises `AdapterGone`."""

    def add(self, item: Address | Network) -> None:
        """Add an address or route that it does not have, as at creation.

        Raises `AdapterGone`, `IPv6Unavailable`, `PermissionDenied` or another `AdapterError`.
        """

    def remove(self, item: Address | Network) -> None:
        """Remove an address or route that it has, and nothing else. Raises as `add` does."""

    def start(self, capacity: int) -> Port:
        """Take the link up, for a session that buffers about `capacity` bytes towards the program."""

    def detach(self, capacity: int) -> int:
        """Take the link up as `start` does, and return a descriptor for another program; then close the device.

        Raises `AdapterUnavailable` on systems without one, and `InvalidSetting` with several queues.
        """

    def unpersist(self) -> None:
        """Let the interface end with the device."""

    def close(self) -> None:
        """Close the interface, which removes it unless it is persistent."""


class Share(NamedTuple):
    """An interface in use, for another process that goes on with it."""

    name: str
    index: int  # type: ignore[assignment]  # It hides tuple.index, which has no use here.
    form: dict[str, Any]
    """The platform's own facts about the descriptors, which JSON can carry."""
    descriptors: list[int]


@runtime_checkable
class Shareable(Protocol):
    """A device that another process can go on with while a session is open."""

    given: bool
    """True if the interface is another process's, so that closing changes nothing about it."""

    def share(self) -> Share:
        """Return the interface's descriptors, which stay those of this device, and the facts about them."""


class HandoverLink(Protocol):
    """A connection to the process that takes over from this one, or hands over to it.

    The methods raise `EndpointError` when the other process has ended or is silent, and another `ThreepipeError` if it
    reports one.
    """

    @property
    def pid(self) -> int:
        """The process that connected, or that began to listen."""

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send a message with copies of descriptors."""

    def receive(self, seconds: float | None) -> tuple[dict[str, Any], list[int]]:
        """Return a message and its descriptors; wait `seconds` at most (None: forever)."""

    def send_error(self, error: Exception) -> None:
        """Have `receive` raise this error at the other end, if that is still there."""

    def send_memory(self, memory: bytearray) -> None:
        """Send bytes, of which this process makes no copy."""

    def receive_memory(self, size: int, seconds: float) -> bytearray:
        """Return `size` bytes that `send_memory` sent."""

    def revoke(self) -> dict[str, Any] | None:
        """Refuse further messages. Return the one that has arrived, if any; sending later ones fails."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is a message, or no other process any more."""

    def close(self) -> None:
        """Close the connection."""


class Finding(NamedTuple):
    """One thing that `threepipe doctor` found out about this machine."""

    name: str
    ok: bool
    detail: str
    """A sentence with the facts."""
    advice: str = ""
    """Advice for the user; empty if there is none."""
    essential: bool = False
    """True if adapters cannot be made without it."""


# The lowest two bits of pcapng's epb_flags (draft-ietf-opsawg-pcapng, section 4.3.1).
UNKNOWN = 0
"""The direction of packets that a capture does not tell."""
INBOUND = 1
"""The direction of packets that the system receives."""
OUTBOUND = 2
"""The direction of packets that the system sends."""


class CapturedBundle(NamedTuple):
    """Captured packets that passed in one direction at one moment, in order."""

    direction: int
    """As the system sees the adapter, as in other captures: packets that the system sends are outbound."""
    packets: Sequence[Packet]
    time_ns: int
    """Nanoseconds since 1970, as from `time.time_ns`."""


Sink: TypeAlias = Callable[[CapturedBundle], None]
"""A function that gets captured packets, from several threads. It must not keep them, as their memory is used again."""


class Source(Protocol):
    """Traffic that can be captured: that of a running pipe or of an adapter."""

    @property
    def name(self) -> str:
        """Its name in a capture file."""

    @property
    def dropped(self) -> int:
        """Packets that were not captured for lack of room, as far as is known."""

    def __iter__(self) -> Iterator[list[CapturedBundle]]:
        """Yield packets as they pass, until `stop` is called or the traffic ends. Raises `ThreepipeError`."""

    def stop(self) -> None:
        """End the iteration after the packets seen so far; from another thread or a signal handler."""

    def close(self) -> None:
        """Close the source."""
