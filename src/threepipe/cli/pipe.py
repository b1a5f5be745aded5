"""`threepipe pipe`: options into a plan, and the life of the command around a running pipe."""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from threepipe.cli.pipe_help import pipe_help
from threepipe.cli.pipe_report import JsonReport, PeopleReport, Report, look
from threepipe.errors import EndpointError, InvalidSetting

if TYPE_CHECKING:
    from threepipe.assembly import Assembly

__all__ = ["pipe"]

_INTERVAL = 1.0  # Seconds between statistics.
_GRACE = 2.0  # Seconds a command gets to end when the pipe has.


def pipe(
    left: Annotated[str, typer.Argument(metavar="LEFT", help="The one end.", show_default=False)],
    right: Annotated[str, typer.Argument(metavar="RIGHT", help="The other end.", show_default=False)],
    capture: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write all packets to a pcapng file, as seen at LEFT.")
    ] = None,
    impair: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="Make the network bad, such as delay=20ms,loss=1%. May be repeated."),
    ] = None,
    mtu_clamp: Annotated[
        int | None,
        typer.Option(metavar="BYTES", help="Have TCP send no longer packets than this.", show_default=False),
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Show packets, bytes, rates and drops each second.")] = False,
    once: Annotated[bool, typer.Option("--once", help="End when the first caller of a listener leaves.")] = False,
    run: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="Run this once both ends are up, and end with it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print events as JSON, one a line, for programs.")] = False,
) -> None:
    from threepipe.assembly import Plan, assemble
    from threepipe.filters.impairment import parse_impairment

    # Read before anything is opened, and before the terminal is taken for the table.
    plan = Plan(left, right, once, mtu_clamp, tuple(parse_impairment(spec) for spec in impair or ()), capture)
    words = _words(run)
    stdio = "stdio" in {address.partition(",")[0] for address in (left, right)} or "-" in (left, right)
    report: Report
    events = sys.stderr if stdio else sys.stdout
    report = JsonReport(events) if json else PeopleReport(left, right, statistics=stats)
    with _ended_by_signals(), _notes_to(report), assemble(plan) as assembly:
        begun = time.monotonic()
        status = 0
        try:
            with _every(_INTERVAL if stats else None, lambda: report.show(look(assembly), time.monotonic() - begun)):
                status = _run(assembly, words, quiet=stdio)
        finally:
            report.end(look(assembly), time.monotonic() - begun)
    raise typer.Exit(status)


def _words(command: str | None) -> list[str] | None:
    """The words of --run; no shell splits them."""
    from threepipe.endpoints.process import split_command

    if command is None:
        return None
    if not (words := split_command(command)):
        raise InvalidSetting("--run needs a command")
    return words


def _run(assembly: "Assembly", words: list[str] | None, *, quiet: bool) -> int:
    """Move packets until an end ends, or the command does, and return its exit status."""
    if words is None:
        assembly.run()
        return 0
    # Packets pass by standard input and output, if `quiet`: they are not the command's then.
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": sys.stderr} if quiet else {}
    try:
        process = subprocess.Popen(words, **streams)
    except OSError as error:
        raise EndpointError(error.errno, f"starting {words[0]}: {error.strerror}") from None

    def end_with_it() -> None:
        process.wait()
        assembly.close()

    thread = threading.Thread(target=end_with_it, name="threepipe-run")
    thread.start()
    try:
        assembly.run()
    finally:
        for ask in (process.terminate, process.kill):
            if process.poll() is None:
                ask()
                thread.join(_GRACE)
        thread.join()
    # As shells say it: a signal's number and 128.
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


@contextmanager
def _every(interval: float | None, do: Callable[[], None]) -> Iterator[None]:
    """Do that each `interval` seconds, in a thread of its own, while the block runs; never, for None."""
    if interval is None:
        yield
        return
    over = threading.Event()

    def tick() -> None:
        while not over.wait(interval):
            do()

    thread = threading.Thread(target=tick, name="threepipe-statistics")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _notes_to(report: Report) -> Iterator[None]:
    """Hand what the library logs, from what is in order up, to `report` instead of printing warnings."""
    log = logging.getLogger("threepipe")
    handler = _Notes(report)
    before, level = log.handlers[:], log.level
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.handlers[:] = before
        log.setLevel(level)


class _Notes(logging.Handler):
    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        self._report.note(record)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """While the block runs, SIGTERM, and Ctrl-Break on Windows, end it as Ctrl-C does, undoing all."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGBREAK") if hasattr(signal, name)]
    before = [(number, signal.signal(number, end)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


pipe.__doc__ = pipe_help()
