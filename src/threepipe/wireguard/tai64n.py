"""TAI64N: the timestamps of initiations, 12 bytes that sort in the order of time (cr.yp.to/libtai/tai64.html)."""

__all__ = ["timestamp"]

_BASE = 2**62 + 10  # In TAI, 1970 began ten seconds later.
_NANOSECONDS = 10**9
_GRAIN = 1 << 24  # Nanoseconds. Finer ones would reveal the machine's clock, and 50 initiations a second need no more.


def timestamp(unix: float) -> bytes:
    """Return the timestamp for `unix` seconds since 1970, rounded down to some 17 ms."""
    seconds, rest = divmod(int(unix * 1e9), _NANOSECONDS)
    return (_BASE + seconds).to_bytes(8, "big") + (rest - rest % _GRAIN).to_bytes(4, "big")
