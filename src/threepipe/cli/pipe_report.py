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

import typer

from threepipe.cli.output import complain, printable

if TYPE_CHECKING:
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
    """A report of lines and, if `statistics`, of rates and totals: redrawn on a terminal, one after another elsewhere.

    Each direction has a line of 78 columns. Elsewhere the headings are repeated, as by vmstat(8).
    """

    def __init__(self, left: str, right: str, *, statistics: bool) -> None:
        self._names = {"right": _direction(left, right), "left": _direction(right, left)}
        self._statistics = statistics
        self._last: BothWays = _NO_TRAFFIC
        self._last_seconds = 0.0
        self._reports = 0
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
        passed = max(seconds - self._last_seconds, 1e-9)
        lines = [_line(self._names[end], total, self._last[end], seconds, passed) for end, total in traffic.items()]
        self._last, self._last_seconds = traffic, seconds
        with suppress(OSError):  # The terminal may be gone.
            if self._live is not None:
                from rich.text import Text

                drawn = Text("\n".join([_HEADINGS, *lines]), no_wrap=True, overflow="crop")
                self._live.update(drawn, refresh=True)
                return
            if self._reports % _REPEAT == 0:
                typer.echo(_HEADINGS, err=True)
            self._reports += 1
            typer.echo("\n".join(lines), err=True)

    def end(self, traffic: BothWays, seconds: float) -> None:
        if not self._statistics:
            return
        self._last, self._last_seconds = _NO_TRAFFIC, 0.0  # Show the average rates.
        self.show(traffic, seconds)
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()


_REPEAT = 10
"""Reports, of two lines each, before the headings come again."""
_NAME_WIDTH = 24
_ROW = f"{{:>7}} {{:<{_NAME_WIDTH}}} {{:>9}} {{:>8}} {{:>8}} {{:>8}} {{:>8}}"
_HEADINGS = _ROW.format("time", "direction", "packets/s", "bit/s", "packets", "bytes", "dropped")


def _line(name: str, total: Traffic, last: Traffic, seconds: float, passed: float) -> str:
    return _ROW.format(
        f"{seconds:.0f} s",
        name,
        _human((total.sent_packets - last.sent_packets) / passed),
        _human((total.sent_bytes - last.sent_bytes) * 8 / passed),
        _human(total.sent_packets),
        _human(total.sent_bytes),
        _human(total.dropped),
    )


def _human(value: float) -> str:
    """Return a number in at most three digits, with a prefix of the SI (powers of 1000)."""
    prefixes = iter(("", " k", " M", " G", " T", " P", " E"))
    prefix = next(prefixes)
    while value >= 999.5:
        value, prefix = value / 1000, next(prefixes)
    return f"{value:.3g}{prefix}" if value >= 0.01 else "0"


def _direction(source: str, target: str) -> str:
    """Return the names of both ends, without options, shortened to fit their column."""
    ends = [printable(address.partition(",")[0]) for address in (source, target)]
    room = _NAME_WIDTH - len(" > ")
    half = room // 2
    widths = [max(half, room - len(ends[1])), max(half, room - len(ends[0]))]
    return " > ".join(
        end if len(end) <= width else f"{end[: width - 1]}…" for end, width in zip(ends, widths, strict=True)
    )
