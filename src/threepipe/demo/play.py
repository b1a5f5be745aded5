"""The demonstration on any stage: it pings with IPv4 and IPv6, then transfers a stream.

A stage has two sessions, which `PumpThread` joins, a way to ping and a way to transfer. This file knows no platform.
"""

import statistics
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeVar

from threepipe.piping import pipe
from threepipe.session import Session

__all__ = ["PINGS", "PrivateNetwork", "PumpThread", "Result", "Stage", "Transfer", "play"]

Made = TypeVar("Made")

PINGS = 100
"""Echo requests for each IP version, one after the other."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """The outcome of a transfer."""

    bytes: int
    seconds: float
    sha256_match: bool
    """True if both ends computed the same hash."""


@dataclass(frozen=True, slots=True)
class Result:
    """The counts of the demonstration. Round-trip times are medians in milliseconds, None if a reply was lost."""

    backend: str
    """"linux-tun", "adapter" or "memory"."""
    privilege: str
    """"root", "user namespace", or "none" if none was needed."""
    namespaces: tuple[str, ...]
    """The kernel's names of the new network namespaces."""
    families: tuple[int, ...]
    """The IP versions that are enabled; only these are pinged."""
    ping4_ms: float | None
    ping6_ms: float | None
    bytes: int
    seconds: float
    bits_per_second: float
    sha256_match: bool
    packets: int
    bundles: int
    packets_per_bundle: float
    dropped: int

    @property
    def intact(self) -> bool:
        """True if all pings of each enabled IP version were answered, and the stream arrived intact."""
        medians = {4: self.ping4_ms, 6: self.ping6_ms}
        return self.sha256_match and all(medians[version] is not None for version in self.families)


class PrivateNetwork(Protocol):
    """A separate network stack, which the platform creates."""

    @property
    def path(self) -> str:
        """The value for the `netns` of `Adapter.create`."""

    def run(self, function: Callable[[], Made]) -> Made:
        """Call `function` inside the network, where the sockets that it creates stay."""

    def close(self) -> None:
        """Remove the network."""


class Stage(Protocol):
    """Two sessions, each with a network stack, or a program in the role of one, at its far side."""

    backend: str
    privilege: str
    namespaces: tuple[str, ...]
    families: tuple[int, ...]
    left: Session
    right: Session

    def ping(self, version: int, count: int) -> list[float]:
        """Send `count` echo requests of the IP `version`; return the round-trip times of those answered, in seconds."""

    def transfer(self, size: int, progress: Callable[[int], None]) -> Transfer:
        """Transfer `size` bytes from left to right, and call `progress` with the bytes that have arrived."""

    def dropped(self) -> int:
        """Return how many packets the network behind the sessions dropped."""


class PumpThread:
    """`pipe` in a thread of its own. Leaving the block closes both sessions and raises the thread's exception."""

    def __init__(self, left: Session, right: Session) -> None:
        self._left = left
        self._right = right
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="threepipe-pump")

    def _run(self) -> None:
        try:
            pipe(self._left, self._right)
        except Exception as error:
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.close()
        self._right.close()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error


def play(stage: Stage, size: int, describe: Callable[[str], None], progress: Callable[[int], None]) -> Result:
    """Ping, transfer `size` bytes and return the counts. Calls `describe` with a line before each step."""
    with PumpThread(stage.left, stage.right):
        medians: dict[int, float | None] = {4: None, 6: None}
        for version in stage.families:
            describe(f"ping, IPv{version}")
            times = stage.ping(version, PINGS)
            medians[version] = statistics.median(times) * 1000 if len(times) == PINGS else None
        describe("transfer")
        transfer = stage.transfer(size, progress)
        dropped = stage.dropped()
    counts = [stage.left.statistics, stage.right.statistics]
    packets = sum(count.received_packets for count in counts)
    bundles = sum(count.received_bundles for count in counts)
    return Result(
        backend=stage.backend,
        privilege=stage.privilege,
        namespaces=stage.namespaces,
        families=stage.families,
        ping4_ms=medians[4],
        ping6_ms=medians[6],
        bytes=transfer.bytes,
        seconds=transfer.seconds,
        bits_per_second=8 * transfer.bytes / transfer.seconds,
        sha256_match=transfer.sha256_match,
        packets=packets,
        bundles=bundles,
        packets_per_bundle=packets / bundles if bundles else 0.0,
        dropped=dropped + sum(count.sent_dropped for count in counts),
    )
