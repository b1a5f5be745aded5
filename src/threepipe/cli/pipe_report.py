"""Reports of `threepipe pipe` while it runs: lines and a live table for people, or JSON for programs.

The text for people goes to standard error, so that it never mixes with packets. Knows nothing of how a pipe is made.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TextIO

from threepipe.cli.output import complain

if TYPE_CHECKING:
    from rich.table import Table

    from threepipe.assembly import Assembly

__all__ = ["JsonReport", "Report", "TextReport", "Traffic", "traffic_of"]


class Traffic(NamedTuple):
    """The totals of one direction: received at one end and sent at the other."""

    received_packets: int = 0
    received_bytes: int = 0
    sent_packets: int = 0
    sent_bytes: int = 0
    dropped: int = 0


BothWays = Mapping[str, Traffic]
"""The traffic towards "right" and towards "left"."""


def traffic_of(assembly: "Assembly") -> BothWays:
    """Return the present totals of both directions of a pipe."""
    left, right = assembly.left.statistics, assembly.right.statistics
    both = {}
    for towards, near, far in (("right", left, right), ("left", right, left)):
        counts = [impair.counts for end, impair in assembly.impairs if end == towards]
        dropped = far.sent_dropped + sum(count.lost + count.overflowed for count in counts)
        both[towards] = Traffic(near.received_packets, near.received_bytes, far.sent_packets, far.sent_bytes, dropped)
    return both


class Report(Protocol):
    """The output of a running pipe; `seconds` count from its start."""

    def note(self, record: logging.LogRecord) -> None: ...

    def show(self, traffic: BothWays, seconds: float) -> None: ...

    def end(self, traffic: BothWays, seconds: float) -> None: ...


_NO_TRAFFIC: BothWays = {"right": Traffic(), "left": Traffic()}


class JsonReport:
    """A report of one JSON object per line, each with its `event` and `time` (seconds since 1970)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def note(self, record: logging.LogRecord) -> None:
        self._print("note", level=record.levelname.lower(), text=record.getMessage())

    def show(self, traffic: BothWays, seconds: float) -> None:
        self._print_traffic("statistics", traffic, seconds)

    def end(self, traffic: BothWays, seconds: float) -> None:
        self._print_traffic("end", traffic, seconds)

    def _print_traffic(self, event: str, traffic: BothWays, seconds: float) -> None:
        totals = {f"towards_{end}": total._asdict() for end, total in traffic.items()}
        self._print(event, seconds=round(seconds, 3), **totals)

    def _print(self, event: str, **values: Any) -> None:
        self._stream.write(json.dumps({"event": event, "time": round(time.time(), 3), **values}) + "\n")
        self._stream.flush()


class TextReport:
    """A report of lines and, if `statistics`, of totals: in a live table on a terminal, in lines elsewhere."""

    def __init__(self, left: str, right: str, *, statistics: bool) -> None:
        self._names = {"right": f"{left} > {right}", "left": f"{right} > {left}"}
        self._statistics = statistics
        self._last: BothWays = _NO_TRAFFIC
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

    def show(self, traffic: BothWays, seconds: float) -> None:
        rates = {
            end: (total.sent_bytes - self._last[end].sent_bytes) * 8 / max(seconds - self._last_seconds, 1e-9)
            for end, total in traffic.items()
        }
        self._last, self._last_seconds = traffic, seconds
        if self._live is not None:
            with suppress(OSError):  # The terminal may be gone.
                self._live.update(self._table(traffic, rates), refresh=True)
        else:
            self._print_lines(traffic, rates, seconds)

    def end(self, traffic: BothWays, seconds: float) -> None:
        if not self._statistics:
            return
        self._last, self._last_seconds = _NO_TRAFFIC, 0.0  # Show the average rates.
        self.show(traffic, seconds)
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()

    def _table(self, traffic: BothWays, rates: Mapping[str, float]) -> "Table":
        from rich.table import Table

        table = Table("", "packets", "bytes", "Mbit/s", "dropped", box=None, padding=(0, 2, 0, 0))
        for end, total in traffic.items():
            table.add_row(
                self._names[end],
                f"{total.sent_packets:,}",
                f"{total.sent_bytes:,}",
                f"{rates[end] / 1e6:,.1f}",
                f"{total.dropped:,}",
            )
        return table

    def _print_lines(self, traffic: BothWays, rates: Mapping[str, float], seconds: float) -> None:
        for end, total in traffic.items():
            complain(
                f"{seconds:.0f} s, {self._names[end]}: {total.sent_packets:,} packets, {total.sent_bytes:,} bytes,"
                f" {rates[end] / 1e6:,.1f} Mbit/s, {total.dropped:,} dropped"
            )
