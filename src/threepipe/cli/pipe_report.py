"""Reports of `threepipe pipe` while it runs: lines and a live table for people, or JSON for programs.

The text for people goes to standard error, so that it never mixes with packets. This file does not know how a pipe is
made.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TextIO

import typer

from threepipe.capture.status import PipeStatus, Traffic
from threepipe.cli.output import complain, printable

__all__ = ["JsonReport", "Report", "TextReport", "direction", "human"]


class Report(Protocol):
    """The output of a running pipe."""

    def note(self, record: logging.LogRecord) -> None: ...

    def show(self, status: PipeStatus) -> None: ...

    def end(self, status: PipeStatus) -> None: ...


_NOTHING = PipeStatus(0, Traffic(), Traffic())


class JsonReport:
    """A report of one JSON object per line, each with its `event` and `time` (seconds since 1970)."""

    def __init__(self, stream: TextIO, stop_output: Callable[[], None] = lambda: None) -> None:
        """Print to `stream`. `end` calls `stop_output` first, which returns after the last call of `output`."""
        self._stream = stream
        self._stop_output = stop_output
        self._lock = threading.Lock()

    def note(self, record: logging.LogRecord) -> None:
        self._print("note", level=record.levelname.lower(), text=record.getMessage())

    def output(self, text: str) -> None:
        """Print an event with a line that a program wrote."""
        self._print("output", text=text)

    def show(self, status: PipeStatus) -> None:
        self._print("statistics", **status.as_fields())

    def end(self, status: PipeStatus) -> None:
        self._stop_output()
        self._print("end", **status.as_fields())

    def _print(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values}) + "\n"
        with self._lock:
            self._stream.write(line)
            self._stream.flush()


class TextReport:
    """A report of lines and, if `statistics`, of rates and totals: redrawn on a terminal, one after another elsewhere.

    Each direction has a line of 78 columns. Elsewhere the headings are repeated, as vmstat(8) does.
    """

    def __init__(self, left: str, right: str, *, statistics: bool) -> None:
        self._names = {"right": direction(left, right), "left": direction(right, left)}
        self._statistics = statistics
        self._last = _NOTHING
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

    def show(self, status: PipeStatus) -> None:
        passed = max(status.seconds - self._last.seconds, 1e-9)
        lines = [
            _line(self._names[end], getattr(status, end), getattr(self._last, end), status.seconds, passed)
            for end in ("right", "left")
        ]
        self._last = status
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

    def end(self, status: PipeStatus) -> None:
        if not self._statistics:
            return
        self._last = _NOTHING  # Show the average rates.
        self.show(status)
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
        human((total.sent_packets - last.sent_packets) / passed),
        human((total.sent_bytes - last.sent_bytes) * 8 / passed),
        human(total.sent_packets),
        human(total.sent_bytes),
        human(total.dropped),
    )


def human(value: float) -> str:
    """Return a number in at most three digits, with a prefix of the SI (powers of 1000)."""
    prefixes = iter(("", " k", " M", " G", " T", " P", " E"))
    prefix = next(prefixes)
    while value >= 999.5:
        value, prefix = value / 1000, next(prefixes)
    return f"{value:.3g}{prefix}" if value >= 0.01 else "0"


def direction(source: str, target: str, width: int = _NAME_WIDTH) -> str:
    """Return the names of both ends, without options, shortened to fit `width` columns."""
    ends = [printable(address.partition(",")[0]) for address in (source, target)]
    room = width - len(" > ")
    half = room // 2
    widths = [max(half, room - len(ends[1])), max(half, room - len(ends[0]))]
    return " > ".join(
        end if len(end) <= width else f"{end[: width - 1]}…" for end, width in zip(ends, widths, strict=True)
    )
