"""A request to open an endpoint, and the log that the endpoint writes to. Knows no kinds."""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from threepipe.endpoints.parts import Part, Taken
    from threepipe.platforms import Enclosure

__all__ = ["OpenRequest", "RateLimitedLog", "Side"]

_log = logging.getLogger("threepipe.endpoints")

_INTERVAL = 10.0  # Seconds; more lines than these of one topic in one interval are counted instead of logged.
_MAX_WARNINGS = 1
_MAX_INFOS = 20

Side = Literal["left", "right"]
Parameter = TypeVar("Parameter")


class RateLimitedLog:
    """The log of one endpoint, which the other end cannot flood. Thread-safe but for the exact counts."""

    def __init__(self, endpoint: str) -> None:
        """Begin each line with `endpoint`, the address."""
        self._endpoint = endpoint
        self._intervals: dict[str, _Interval] = {}

    def warn(self, topic: str, text: str) -> None:
        """Log `text` as a warning, unless the same interval has a warning of this `topic`."""
        self._write(logging.WARNING, topic, text, _MAX_WARNINGS)

    def info(self, text: str) -> None:
        """Log `text` as an ordinary event."""
        self._write(logging.INFO, "", text, _MAX_INFOS)

    def _write(self, level: int, topic: str, text: str, limit: int) -> None:
        now = time.monotonic()
        interval = self._intervals.get(topic, _Interval(now, 0))
        is_over = now - interval.start >= _INTERVAL
        suppressed = max(0, interval.lines - limit)
        self._intervals[topic] = _Interval(now, 1) if is_over else interval._replace(lines=interval.lines + 1)
        if is_over or interval.lines < limit:
            more = f" ({suppressed} similar lines suppressed)" if is_over and suppressed else ""
            _log.log(level, "%s: %s%s", self._endpoint, text, more)


class _Interval(NamedTuple):
    start: float
    lines: int


class OpenRequest(NamedTuple, Generic[Parameter]):
    """The first argument of an opener; the options of the address are the others, by name."""

    parameter: Parameter
    """The text after the kind's colon, as the kind reads it."""
    side: Side
    """The end of the pipe to open."""
    log: RateLimitedLog
    lost: Callable[[str], None] = lambda _: None
    """To be called with a text if the other end closes a connection that this end made, and it is not made again."""
    enclosed: "Callable[[Enclosure], None]" = lambda _: None
    """To be called with the namespaces that were made for an adapter."""
    taken: "Taken | None" = None
    """The end of another process, to go on with in place of opening one."""
    opened: "Callable[[Part], None]" = lambda _: None
    """To be called with the end as another process can go on with it, unless it cannot."""
