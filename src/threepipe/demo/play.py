"""What the demonstration does, whatever the stage: pings both families, then carries a stream.

Knows no platform. A stage has two sessions that `Pump` joins, a way to ping and a way to transfer.
"""

import statistics
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeVar

from threepipe.pipe import pipe
from threepipe.session import Session

__all__ = ["PINGS", "PrivateNetwork", "Pump", "Result", "Stage", "Transfer", "play"]

Made = TypeVar("Made")

PINGS = 100
"""Echo requests a family, one after the other."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """How a stream arrived: its bytes, the seconds it took, and whether both ends' hashes agree."""

    bytes: int
    seconds: float
    sha256_match: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What the demonstration counted. Round-trip times are medians in milliseconds, None where lost."""

    backend: str
    """"linux-tun" or "memory"."""
    privilege: str
    """"root", "user namespace", or "none" where none was needed."""
    namespaces: tuple[str, ...]
    """The kernel's names of the network namespaces that were made."""
    families: tuple[int, ...]
    """The IP versions that this machine has; others are not pinged."""
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
        """Whether the pings of each family there is were answered, and the stream arrived whole."""
        medians = {4: self.ping4_ms, 6: self.ping6_ms}
        return self.sha256_match and all(medians[version] is not None for version in self.families)


class PrivateNetwork(Protocol):
    """A network stack of its own, from the platform."""

    @property
    def path(self) -> str:
        """What `Adapter.create` takes as its `netns`."""

    def run(self, function: Callable[[], Made]) -> Made:
        """Call `function` inside; sockets made there stay there."""

    def close(self) -> None: ...


class Stage(Protocol):
    """Two sessions with a network stack, or a program that plays one, at the far side of each."""

    backend: str
    privilege: str
    namespaces: tuple[str, ...]
    families: tuple[int, ...]
    left: Session
    right: Session

    def ping(self, version: int, count: int) -> list[float]:
        """Seconds that each answered one of `count` echo requests of the IP `version` took."""

    def transfer(self, size: int, progress: Callable[[int], None]) -> Transfer:
        """Carry `size` bytes from left to right; tells the bytes arrived so far to `progress`."""

    def dropped(self) -> int:
        """Packets that the network behind the sessions dropped."""


class Pump:
    """`pipe` in a thread of its own; leaving the block closes both sessions and raises what it raised."""

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


def play(stage: Stage, size: int, told: Callable[[str], None], progress: Callable[[int], None]) -> Result:
    """Ping, transfer `size` bytes, count. `told` gets a line before each act."""
    with Pump(stage.left, stage.right):
        medians: dict[int, float | None] = {4: None, 6: None}
        for version in stage.families:
            told(f"ping, IPv{version}")
            times = stage.ping(version, PINGS)
            medians[version] = statistics.median(times) * 1000 if len(times) == PINGS else None
        told("transfer")
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
