"""The log of Wintun's library: passed to `logging`, and kept for the errors that it explains. Knows no calls."""

import logging
from collections import deque
from collections.abc import Callable

__all__ = ["Log"]

_log = logging.getLogger("threepipe.wintun")

_LEVELS = {0: logging.INFO, 1: logging.WARNING, 2: logging.ERROR}
"""The level of `logging` for a WINTUN_LOGGER_LEVEL."""

_EPOCH = 116_444_736_000_000_000  # 1970 as a FILETIME, which counts 100 ns since 1601.
_PER_SECOND = 10_000_000
_MAX_KEPT = 8  # Warnings and errors, the newest ones.


class Log:
    """The log lines of the library. `write` may be called on any thread and never raises."""

    def __init__(self) -> None:
        self._kept: deque[str] = deque(maxlen=_MAX_KEPT)

    def write(self, level: int, time: int, message: str | None) -> None:
        """Log one line at its `time`, a FILETIME (WINTUN_LOGGER_CALLBACK)."""
        try:
            severity = _LEVELS.get(level, logging.ERROR)
            if severity > logging.INFO and message:
                self._kept.append(message)
            if _log.isEnabledFor(severity):
                record = _log.makeRecord(_log.name, severity, "wintun", 0, "%s", (message or "",), None)
                seconds = (time - _EPOCH) / _PER_SECOND
                record.relativeCreated += (seconds - record.created) * 1000
                record.created, record.msecs = seconds, float((time // 10_000) % 1000)
                _log.handle(record)
        except Exception:
            # The caller is the library, which cannot handle it. `logging` reports failing handlers itself.
            return

    def during(self, call: Callable[[], int]) -> tuple[int, list[str]]:
        """Return the result of `call`, and the warnings and errors that the library logged meanwhile on any thread."""
        self._kept.clear()
        result = call()
        return result, list(self._kept)
