"""Schedule: the times at which peers are to be checked, the earliest first.

A peer has at most one check ahead, at its `check_at`. Knows no clock, and no check's work.
"""

import heapq
import itertools
from collections.abc import Iterator

from threepipe.wireguard.peer import NEVER, Peer

__all__ = ["Schedule"]


class Schedule:
    """The checks ahead, in a heap; an entry that an earlier check or a removal outdated is skipped when it comes up."""

    def __init__(self) -> None:
        self._checks: list[tuple[float, int, Peer]] = []
        self._order = itertools.count()

    @property
    def earliest(self) -> float:
        """The time of the earliest check, which may be outdated; `NEVER` if there is none."""
        return self._checks[0][0] if self._checks else NEVER

    def check_by(self, peer: Peer, at: float) -> None:
        """Have the peer checked at `at`, unless it is checked earlier anyway."""
        if at < peer.check_at:
            peer.check_at = at
            heapq.heappush(self._checks, (at, next(self._order), peer))

    def cancel(self, peer: Peer) -> None:
        """Forget the peer's check."""
        peer.check_at = NEVER

    def due(self, now: float) -> Iterator[Peer]:
        """Yield the peers whose checks are due; each has none ahead then."""
        while self._checks and self._checks[0][0] <= now:
            at, _, peer = heapq.heappop(self._checks)
            if at == peer.check_at:
                peer.check_at = NEVER
                yield peer
