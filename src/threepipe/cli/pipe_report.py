"""What `threepipe pipe` says while it runs: lines and a live table for people, or JSON for programs.

People are told on standard error, where nothing can be taken for packets. Knows nothing of how a pipe is made.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TextIO

from threepipe.cli.output import complain

if TYPE_CHECKING:
    from rich.table import Table

    from threepipe.assembly import Assembly

__all__ = ["JsonReport", "PeopleReport", "Report", "Way", "look"]


class Way(NamedTuple):
    """One direction so far: what went in at one end and came out at the other."""

    received_packets: int = 0
    received_bytes: int = 0
    sent_packets: int = 0
    sent_bytes: int = 0
    dropped: int = 0


Ways = Mapping[str, Way]
"""By the end that packets go to: right and left."""


def look(assembly: "Assembly") -> Ways:
    """Both directions of a pipe as they are now."""
    left, right = assembly.left.statistics, assembly.right.statistics
    ways = {}
    for towards, near, far in (("right", left, right), ("left", right, left)):
        counts = [impair.counts for end, impair in assembly.impairs if end == towards]
        dropped = far.sent_dropped + sum(count.lost + count.overflowed for count in counts)
        ways[towards] = Way(near.received_packets, near.received_bytes, far.sent_packets, far.sent_bytes, dropped)
    return ways


class Report(Protocol):
    """Who is told; `seconds` are those since the pipe began."""

    def note(self, record: logging.LogRecord) -> None: ...

    def show(self, ways: Ways, seconds: float) -> None: ...

    def end(self, ways: Ways, seconds: float) -> None: ...


class JsonReport:
    """An object a line, each with its `event` and `time` (seconds since 1970)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def note(self, record: logging.LogRecord) -> None:
        self._print("note", level=record.levelname.lower(), text=record.getMessage())

    def show(self, ways: Ways, seconds: float) -> None:
        self._traffic("statistics", ways, seconds)

    def end(self, ways: Ways, seconds: float) -> None:
        self._traffic("end", ways, seconds)

    def _traffic(self, event: str, ways: Ways, seconds: float) -> None:
        self._print(event, seconds=round(seconds, 3), **{f"towards_{end}": way._asdict() for end, way in ways.items()})

    def _print(self, event: str, **values: Any) -> None:
        self._stream.write(json.dumps({"event": event, "time": round(time.time(), 3), **values}) + "\n")
        self._stream.flush()


class PeopleReport:
    """Notes as lines; and, if `statistics`, a table that is renewed on a terminal, and lines elsewhere."""

    def __init__(self, left: str, right: str, *, statistics: bool) -> None:
        self._names = {"right": f"{left} > {right}", "left": f"{right} > {left}"}
        self._statistics = statistics
        self._last: Ways = {"right": Way(), "left": Way()}
        self._last_seconds = 0.0
        self._live: Any = None
        if statistics and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False)
            self._live.start()

    def note(self, record: logging.LogRecord) -> None:
        warning = "warning: " if record.levelno >= logging.WARNING else ""
        complain(f"{warning}{record.getMessage()}")

    def show(self, ways: Ways, seconds: float) -> None:
        rates = {
            end: (way.sent_bytes - self._last[end].sent_bytes) * 8 / max(seconds - self._last_seconds, 1e-9)
            for end, way in ways.items()
        }
        self._last, self._last_seconds = ways, seconds
        if self._live is not None:
            self._live.update(self._table(ways, rates), refresh=True)
        else:
            self._lines(ways, rates, seconds)

    def end(self, ways: Ways, seconds: float) -> None:
        if not self._statistics:
            return
        self._last, self._last_seconds = {"right": Way(), "left": Way()}, 0.0  # The whole time's rates.
        self.show(ways, seconds)
        if self._live is not None:
            self._live.stop()

    def _table(self, ways: Ways, rates: Mapping[str, float]) -> "Table":
        from rich.table import Table

        table = Table("", "packets", "bytes", "Mbit/s", "dropped", box=None, padding=(0, 2, 0, 0))
        for end, way in ways.items():
            table.add_row(
                self._names[end],
                f"{way.sent_packets:,}",
                f"{way.sent_bytes:,}",
                f"{rates[end] / 1e6:,.1f}",
                f"{way.dropped:,}",
            )
        return table

    def _lines(self, ways: Ways, rates: Mapping[str, float], seconds: float) -> None:
        for end, way in ways.items():
            complain(
                f"{seconds:.0f} s, {self._names[end]}: {way.sent_packets:,} packets, {way.sent_bytes:,} bytes,"
                f" {rates[end] / 1e6:,.1f} Mbit/s, {way.dropped:,} dropped"
            )
