"""The log of Wintun's library, given to `logging` and kept for the errors it explains. Knows no calls."""

import logging
from collections import deque
from collections.abc import Callable

__all__ = ["Log"]

_log = logging.getLogger("threepipe.wintun")

_LEVELS = {0: logging.INFO, 1: logging.WARNING, 2: logging.ERROR}
"""WINTUN_LOGGER_LEVEL -> that of `logging`."""

_EPOCH = 116_444_736_000_000_000  # 1970 as a FILETIME, which counts 100 ns since 1601.
_PER_SECOND = 10_000_000
_MOST_KEPT = 8  # Complaints, the newest ones.


class Log:
    """What the library says; `take` may be called on any thread and never raises."""

    def __init__(self) -> None:
        self._complaints: deque[str] = deque(maxlen=_MOST_KEPT)

    def take(self, level: int, time: int, message: str | None) -> None:
        """Log one line with its own `time`, a FILETIME (WINTUN_LOGGER_CALLBACK)."""
        try:
            severity = _LEVELS.get(level, logging.ERROR)
            if severity > logging.INFO and message:
                self._complaints.append(message)
            if _log.isEnabledFor(severity):
                record = _log.makeRecord(_log.name, severity, "wintun", 0, "%s", (message or "",), None)
                seconds = (time - _EPOCH) / _PER_SECOND
                record.relativeCreated += (seconds - record.created) * 1000
                record.created, record.msecs = seconds, float((time // 10_000) % 1000)
                _log.handle(record)
        except Exception:
            # Nobody above could be told: that is the library's code. A handler that fails has its own way to say so.
            return

    def during(self, call: Callable[[], int]) -> tuple[int, list[str]]:
        """What `call` returned, and the warnings and errors the library gave meanwhile, on whatever thread."""
        self._complaints.clear()
        result = call()
        return result, list(self._complaints)
