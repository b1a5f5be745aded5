"""What endpoints log: each thing said once, and then only now and then, whoever keeps provoking it."""

import logging
import time
from typing import Literal, NamedTuple

__all__ = ["Asked", "Complaints", "Side"]

_log = logging.getLogger("threepipe.endpoints")

_SPELL = 10.0  # Seconds in which no more than so many lines of a kind are logged, the others counted:
_MOST_WARNINGS = 1
_MOST_NEWS = 20


class Complaints:
    """The voice of one endpoint. Not thread-safe to the last count."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint`: its address, which every line begins with."""
        self._endpoint = endpoint
        self._spells: dict[str, _Spell] = {}

    def warn(self, kind: str, text: str) -> None:
        """Log `text`, unless something of its `kind` was logged some seconds ago."""
        self._say(logging.WARNING, kind, text, _MOST_WARNINGS)

    def tell(self, text: str) -> None:
        """Log what is in order."""
        self._say(logging.INFO, "", text, _MOST_NEWS)

    def _say(self, level: int, kind: str, text: str, most: int) -> None:
        now = time.monotonic()
        spell = self._spells.get(kind, _Spell(now, 0))
        over = now - spell.begun >= _SPELL
        unsaid = max(0, spell.lines - most)
        self._spells[kind] = _Spell(now, 1) if over else spell._replace(lines=spell.lines + 1)
        if over or spell.lines < most:
            more = f" ({unsaid} more like it in between)" if over and unsaid else ""
            _log.log(level, "%s: %s%s", self._endpoint, text, more)


class _Spell(NamedTuple):
    begun: float
    lines: int


Side = Literal["left", "right"]


class Asked(NamedTuple):
    """`place` is what stands behind the kind's colon; the options are the opener's arguments."""

    place: str
    side: Side
    """Where it stands in a pipe: only files of packets differ by it."""
    complaints: Complaints
