"""Traffic: what passed a peer of WireGuard, and since when something is due for it.

Noted for every bundle, in the loops that pass them; what is to be done about it and when is the caller's business.
Times are seconds of a clock that does not jump.
"""

__all__ = ["Traffic"]


class Traffic:
    """Of one peer."""

    __slots__ = ("owed_more", "owed_since", "rx_bytes", "traversed", "tx_bytes", "unanswered_since", "watched")

    def __init__(self) -> None:
        self.rx_bytes = self.tx_bytes = 0
        """Bytes of messages, those of handshakes included."""
        self.unanswered_since: float | None = None
        """When the first data was sent that nothing came after."""
        self.owed_since: float | None = None
        """When the first data came that nothing was sent after; `owed_more`, whether it was not the last."""
        self.owed_more = False
        self.traversed = float("-inf")
        """When the last authentic message passed in any direction."""
        self.watched = False
        """Whether somebody is going to look what is due; who looks sets it to False first."""

    def sent(self, now: float, data: bool, size: int) -> bool:
        """Note that messages of `size` bytes were sent; whether nobody was going to look."""
        self.tx_bytes += size
        self.owed_since = None
        self.traversed = now
        if data and self.unanswered_since is None:
            self.unanswered_since = now
        watched, self.watched = self.watched, True
        return not watched

    def count_sent(self, size: int) -> None:
        """Note that what `sent` was told of, before its size was known, came to `size` bytes."""
        self.tx_bytes += size

    def received(self, now: float, data: bool, size: int) -> bool:
        """Note that authentic messages of `size` bytes came; whether nobody was going to look."""
        self.rx_bytes += size
        self.unanswered_since = None
        self.traversed = now
        if data:
            if self.owed_since is None:
                self.owed_since = now
            else:
                self.owed_more = True
        watched, self.watched = self.watched, True
        return not watched
