"""`threepipe pipe`: makes a plan of the options, and runs the pipe, its command and its report."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from threepipe.cli.completers import files, impairments, left_addresses, pipes, right_addresses
from threepipe.cli.output import Quiet, Verbose, log_level, printable
from threepipe.cli.pipe_help import pipe_help
from threepipe.cli.pipe_report import JsonReport, Report, TextReport
from threepipe.cli.streams import relayed_errors, streams_of_command
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.net.signals import defer_signals, exit_once

if TYPE_CHECKING:
    from threepipe.assembly import Assembly
    from threepipe.platforms import EnclosedProgram

__all__ = ["pipe"]

_INTERVAL = 1.0  # Seconds between statistics.
_GRACE = 2.0  # Seconds a command gets to end after SIGTERM.


Left = Annotated[
    str, typer.Argument(metavar="LEFT", help="One end.", show_default=False, autocompletion=left_addresses)
]
Right = Annotated[
    str, typer.Argument(metavar="RIGHT", help="The other end.", show_default=False, autocompletion=right_addresses)
]
Capture = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write all packets to a pcapng file, as at LEFT.", autocompletion=files),
]
Impair = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SPEC", help="Simulate a bad network: delay=20ms,loss=1%. Repeatable.", autocompletion=impairments
    ),
]
MtuClamp = Annotated[
    int | None,
    typer.Option(metavar="BYTES", help="Limit the packets of TCP connections to this size.", show_default=False),
]
Stats = Annotated[bool, typer.Option("--stats", help="Show packets, bytes, rates and drops every second.")]
Once = Annotated[bool, typer.Option("--once", help="End when the first client of a listener disconnects.")]
Run = Annotated[str | None, typer.Option(metavar="COMMAND", help="Run this when both ends are up, and end with it.")]
Takeover = Annotated[
    str | None,
    typer.Option(
        metavar="PIPE",
        help="Go on with a running pipe of the same addresses, by its name in threepipe ps or its process id, in place"
        " of its process, which ends then.",
        show_default=False,
        autocompletion=pipes,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print events as JSON, one per line, for programs.")]


def pipe(
    left: Left,
    right: Right,
    capture: Capture = None,
    impair: Impair = None,
    mtu_clamp: MtuClamp = None,
    stats: Stats = False,
    once: Once = False,
    run: Run = None,
    takeover: Takeover = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    from threepipe.assembly import Plan
    from threepipe.cli.pipe_takeover import assembled, check_takeover, in_service
    from threepipe.endpoints.address import parse_address
    from threepipe.filters.impairment import parse_impairment

    level = log_level(verbose, quiet, logging.INFO)
    # Check everything before anything is opened, and before the table takes the terminal.
    plan = Plan(
        parse_address(left, "left"),
        parse_address(right, "right"),
        once=once,
        mtu_clamp=mtu_clamp,
        impairments=[parse_impairment(spec) for spec in impair or ()],
        capture=capture,
    )
    plan.check()
    words = _words(run)
    if takeover is not None:
        check_takeover(plan, words)
    stdio = "stdio" in plan.kinds
    with (
        exit_once(),
        _report(left, right, stats=stats, json=json, packets=stdio) as report,
        _logging_to(report, level),
        assembled(plan, takeover) as (assembly, taking),
    ):
        status = 0

        def show() -> None:
            report.show(assembly.status())

        try:
            line = printable(f"{left} > {right}")
            with in_service(plan, assembly, taking, line, words), _every(_INTERVAL if stats else None, show):
                status = _run(assembly, words, streams_of_command(packets=stdio, json=json))
        except SystemExit:
            status = 0  # A request to end is the usual end of a service.
        finally:
            report.end(assembly.status())
    raise typer.Exit(status)


@contextmanager
def _report(left: str, right: str, *, stats: bool, json: bool, packets: bool) -> Iterator[Report]:
    """Yield the report of a pipe. If it uses standard output for `packets`, JSON goes to standard error alone."""
    if not json:
        yield TextReport(left, right, statistics=stats)
    elif not packets:
        yield JsonReport(sys.stdout)
    else:
        with relayed_errors() as relay:
            report = JsonReport(relay.stream, relay.stop)
            relay.start(report.output)
            yield report


def _words(command: str | None) -> list[str] | None:
    """Split the command of --run into words, without a shell."""
    from threepipe.endpoints.grammar import split_command

    if command is None:
        return None
    if not (words := split_command(command)):
        raise InvalidSetting("--run needs a command, as in --run 'sleep 60'")
    return words


def _run(assembly: "Assembly", words: list[str] | None, streams: dict[str, Any]) -> int:
    """Move packets until an end or the command ends, and return the command's exit status."""
    if words is None:
        assembly.run()
        return 0
    process: subprocess.Popen[bytes] | EnclosedProgram | None = None

    def close_after_command() -> None:
        assert process is not None
        process.wait()
        assembly.close()

    thread = threading.Thread(target=close_after_command, name="threepipe-run")
    try:
        with defer_signals():
            process = _start(words, streams, assembly)
        thread.start()
        assembly.run()
    finally:
        if process is not None:
            _end(process)
        if thread.ident is not None:
            thread.join()
    assert process.returncode is not None, "it has ended"
    # As in shells: 128 plus the number of the signal that ended the command.
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _start(
    words: list[str], streams: dict[str, Any], assembly: "Assembly"
) -> "subprocess.Popen[bytes] | EnclosedProgram":
    """Start the command, inside of the namespace if one was made for an adapter. Raises `EndpointError`."""
    if assembly.enclosure is not None:
        with open(os.devnull, "rb") as nothing:
            return assembly.enclosure.start(
                words, (nothing.fileno() if "stdin" in streams else 0, 2 if "stdout" in streams else 1, 2)
            )
    try:
        return subprocess.Popen(words, **streams)
    except OSError as error:
        raise EndpointError(error.errno, f"starting {words[0]}: {error.strerror}") from None


def _end(process: "subprocess.Popen[bytes] | EnclosedProgram") -> None:
    """Wait for the end of the command, and bring it about if it still runs."""
    for ask in (process.terminate, process.kill):
        if process.poll() is None:
            ask()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                pass  # It gets SIGKILL next, which no program survives.
    process.wait()


@contextmanager
def _every(interval: float | None, action: Callable[[], None]) -> Iterator[None]:
    """Call `action` every `interval` seconds (None: never) in a thread of its own, while the block runs."""
    if interval is None:
        yield
        return
    stopped = threading.Event()

    def tick() -> None:
        while not stopped.wait(interval):
            action()

    thread = threading.Thread(target=tick, name="threepipe-statistics")
    try:
        thread.start()  # A signal may interrupt it when the thread runs already.
        yield
    finally:
        stopped.set()
        if thread.ident is not None:
            thread.join()


@contextmanager
def _logging_to(report: Report, level: int) -> Iterator[None]:
    """Send the library's log, from `level` up, to `report` alone while the block runs."""
    log = logging.getLogger("threepipe")
    handler = _ReportHandler(report)
    before, level_before = log.handlers[:], log.level
    log.handlers[:] = [handler]
    log.setLevel(level)
    try:
        yield
    finally:
        log.handlers[:] = before
        log.setLevel(level_before)


class _ReportHandler(logging.Handler):
    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        self._report.note(record)


pipe.__doc__ = pipe_help()
