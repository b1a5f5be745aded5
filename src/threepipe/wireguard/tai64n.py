"""TAI64N: the timestamps of initiations, 12 bytes that sort in the order of time (cr.yp.to/libtai/tai64.html)."""

from collections.abc import Callable

__all__ = ["Timestamps", "seconds_between", "timestamp"]

_BASE = 2**62 + 10  # In TAI, 1970 began ten seconds later.
_NANOSECONDS = 10**9
_GRAIN = 1 << 24  # Nanoseconds. Finer ones would reveal the machine's clock, and 50 initiations a second need no more.
_SECONDS_SIZE = 8


def timestamp(unix: float) -> bytes:
    """Return the timestamp for `unix` seconds since 1970, rounded down to some 17 ms."""
    return _pack(int(unix * 1e9))


def seconds_between(earlier: bytes, later: bytes) -> float:
    """Return the seconds from one timestamp to another."""
    return (_unpack(later) - _unpack(earlier)) / _NANOSECONDS


class Timestamps:
    """The timestamps of one device, which never go back, as a peer refuses those that do (section 5.1).

    The wall clock is read for each, so that a clock that is set right while the device runs is followed forward. A
    clock that is set back is not followed.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        """`wall_clock` returns seconds since 1970."""
        self._wall_clock = wall_clock
        self.latest = bytes(_SECONDS_SIZE)  # Below every timestamp.
        """The last timestamp."""

    def after(self, previous: bytes) -> bytes:
        """Return a timestamp for now that is above `previous`, the last one for the same peer; empty for none."""
        self.latest = max(self.latest, timestamp(self._wall_clock()))
        return max(self.latest, _pack(_unpack(previous) + _GRAIN)) if previous else self.latest


def _pack(nanoseconds: int) -> bytes:
    seconds, rest = divmod(nanoseconds, _NANOSECONDS)
    return (_BASE + seconds).to_bytes(_SECONDS_SIZE, "big") + (rest - rest % _GRAIN).to_bytes(4, "big")


def _unpack(stamp: bytes) -> int:
    """Return the nanoseconds since 1970 of a timestamp."""
    seconds, rest = stamp[:_SECONDS_SIZE], stamp[_SECONDS_SIZE:]
    return (int.from_bytes(seconds, "big") - _BASE) * _NANOSECONDS + int.from_bytes(rest, "big")
