"""`threepipe ps` and `threepipe top`: the running pipes and WireGuard devices, with their rates."""

import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from threepipe.cli.output import print_json, print_json_line
from threepipe.cli.pipe_report import direction, human
from threepipe.cli.running import Program, look, rates

__all__ = ["ps", "top"]

_SAMPLE = 0.5  # Seconds between the two looks of ps.
_INTERVAL = 1.0  # Seconds between those of top.

_NARROWEST, _WIDEST = 80, 200  # Columns.


def ps(json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False) -> None:
    """List the running pipes and WireGuard devices of this user, with their rates.

    Rates are those of half a second. Arrows point from the left to the right
    end of a pipe, and from a device to its peers (>), and back (<). Devices
    may be of any userspace implementation.

    Examples:
      threepipe ps
      sudo threepipe ps --json
    """
    said: set[str] = set()
    before = look(said)
    if before:
        time.sleep(_SAMPLE)
    now = look(said) if before else []
    if json:
        print_json([_fields(before, program) for program in now])
    else:
        typer.echo("\n".join(_lines(before, now, _columns())))


def top(
    count: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, help="End after this many updates.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs: a line for each update.")] = False,
) -> None:
    """Watch the running pipes and WireGuard devices, the busiest first, until Ctrl-C.

    Every second it shows the same as threepipe ps.

    Examples:
      threepipe top
      threepipe top --json --count 60
    """
    said: set[str] = set()
    before = look(said)
    shown = 0
    try:
        with _Screen(sys.stdout.isatty() and not json) as screen:
            while count is None or shown < count:
                time.sleep(_INTERVAL)
                now = look(said)
                if json:
                    print_json_line([_fields(before, program) for program in now])
                else:
                    busiest = sorted(now, key=lambda program: -sum(rates(before, program) or (0, 0)))
                    screen.show(_lines(before, busiest, _columns()))
                before, shown = now, shown + 1
    except KeyboardInterrupt:
        pass  # The usual end.


class _Screen:
    """A terminal whose content is replaced with each update; elsewhere updates follow one another."""

    def __init__(self, terminal: bool) -> None:
        self._live: Any = None
        if terminal:
            from rich.live import Live

            self._live = Live(screen=True, auto_refresh=False)

    def __enter__(self) -> "_Screen":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, lines: Sequence[str]) -> None:
        if self._live is None:
            typer.echo("\n".join(lines) + "\n")
            return
        from rich.text import Text

        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)


def _columns() -> int:
    return max(shutil.get_terminal_size((_WIDEST, 24)).columns, _NARROWEST) if sys.stdout.isatty() else _WIDEST


def _fields(before: Iterable[Program], program: Program) -> dict[str, Any]:
    rate = rates(before, program)
    bits = None if rate is None else {name: round(value) for name, value in rate._asdict().items()}
    return {"name": program.name, "kind": program.kind, **program.fields, "bits_per_second": bits}


_ROW = "{:<{name}} {:<{ends}} {:>9} {:>8} {:>8} {:>8} {:>8}"
_HEADINGS = ("name", "ends", "time", "> bit/s", "< bit/s", "> bytes", "< bytes")
_NUMBERS = 46  # Columns, with the spaces before them.


def _lines(before: Sequence[Program], now: Sequence[Program], columns: int) -> list[str]:
    """Return a heading and a line for each program, at most `columns` wide."""
    name = max([len("name"), *[len(program.name) for program in now]])
    room = columns - name - 1 - _NUMBERS
    ends = max([len("ends"), *[min(len(" > ".join(program.ends)), room) for program in now]])
    lines = [_ROW.format(*_HEADINGS, name=name, ends=ends)]
    for program in now:
        rate = rates(before, program)
        cells = ["-", "-"] if rate is None else [human(rate.sent), human(rate.received)]
        shown = direction(*program.ends, ends) if program.kind == "pipe" else program.ends[1]
        age = _age(program.clock) if program.kind == "pipe" else "-"
        totals = [human(program.sent), human(program.received)]
        lines.append(_ROW.format(program.name, shown, age, *cells, *totals, name=name, ends=ends))
    return lines


def _age(seconds: float) -> str:
    """Return a time as h:mm:ss, or with days from 100 hours on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours < 100 else f"{hours // 24} d {hours % 24} h"
