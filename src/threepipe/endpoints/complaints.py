"""What endpoints log: each thing said once, and then only now and then, whoever keeps provoking it."""

import logging
import time

__all__ = ["Complaints"]

_log = logging.getLogger("threepipe.endpoints")

_PAUSE = 10.0  # Seconds in which the same complaint is only counted.


class Complaints:
    """The voice of one endpoint."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint`: its address, which every line begins with."""
        self._endpoint = endpoint
        self._said: dict[str, tuple[float, int]] = {}  # When a kind was said last, and how many were not since.

    def warn(self, kind: str, text: str) -> None:
        """Log `text`, unless something of its `kind` was logged some seconds ago."""
        now = time.monotonic()
        last, unsaid = self._said.get(kind, (-_PAUSE, 0))
        if now - last < _PAUSE:
            self._said[kind] = last, unsaid + 1
            return
        more = f" ({unsaid} more like it in between)" if unsaid else ""
        self._said[kind] = now, 0
        _log.warning("%s: %s%s", self._endpoint, text, more)

    def tell(self, text: str) -> None:
        """Log what is in order."""
        _log.info("%s: %s", self._endpoint, text)
