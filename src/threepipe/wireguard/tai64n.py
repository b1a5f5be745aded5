"""TAI64N: the timestamps of initiations, 12 bytes that sort as time does (cr.yp.to/libtai/tai64.html)."""

__all__ = ["timestamp"]

_BASE = 2**62 + 10  # 1970 began ten seconds later in TAI.
_GRAIN = 1 << 24  # Nanoseconds; what is finer would tell of the machine, and is not needed at 50 a second.


def timestamp(unix: float) -> bytes:
    """`unix`, seconds since 1970, cut off to some 17 ms."""
    nanoseconds = int(unix * 1e9)
    return (_BASE + nanoseconds // 10**9).to_bytes(8, "big") + (nanoseconds % 10**9 // _GRAIN * _GRAIN).to_bytes(
        4, "big"
    )
