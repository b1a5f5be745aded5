"""`threepipe capture`: the packets of an adapter or a running pipe, as pcapng.

It calls `threepipe.capture` and prints the summary.
"""

import json as jsonlib
import os
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from threepipe.cli.completers import capture_names, files
from threepipe.cli.options import Netns
from threepipe.cli.output import Quiet, Verbose, complain, log_level, show_log

if TYPE_CHECKING:
    from threepipe.backend import Source
    from threepipe.capture.live import LiveCapture
    from threepipe.capture.writer import CaptureWriter

__all__ = ["capture"]

STANDARD_OUTPUT = "-"


def _install_extcap(wanted: bool) -> None:
    if wanted:
        from threepipe.capture.install import install_extcap

        typer.echo(os.fsencode(install_extcap()))
        raise typer.Exit


Name = Annotated[
    str,
    typer.Argument(
        help="Name of the adapter, or pipe:PID for a running pipe.",
        show_default=False,
        autocompletion=capture_names,
    ),
]
Write = Annotated[
    str,
    typer.Option(metavar="FILE", help="File to write pcapng to, instead of standard output.", autocompletion=files),
]
Count = Annotated[
    int | None, typer.Option(metavar="PACKETS", min=1, help="Stop after this many packets.", show_default=False)
]
Expression = Annotated[
    str | None,
    typer.Option("--filter", metavar="EXPRESSION", help="Only packets that match, as for tcpdump; needs libpcap."),
]
Install = Annotated[
    bool,
    typer.Option(
        "--install-extcap",
        callback=_install_extcap,
        is_eager=True,
        help="Have this user's Wireshark list adapters and pipes, and exit.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON, for programs.")]


def capture(
    name: Name,
    write: Write = STANDARD_OUTPUT,
    netns: Netns = None,
    count: Count = None,
    expression: Expression = None,
    install: Install = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Capture packets as pcapng, which Wireshark and tcpdump read.

    Ctrl-C stops the capture. Directions are the system's: packets that it
    sends into the adapter are outbound. The counts go to standard error.
    To list running pipes, use threepipe ps.

    Examples:
      threepipe capture tp0 --write tp0.pcapng
      threepipe capture tp0 | tshark -r -
      threepipe capture pipe:4242 --count 100 | tcpdump -r -
      threepipe capture tp0 --filter 'tcp port 443 or icmp' --write some.pcapng
    """
    from threepipe.capture.client import PREFIX
    from threepipe.capture.expression import PacketFilter
    from threepipe.capture.live import LiveCapture, open_source
    from threepipe.capture.writer import CaptureWriter

    if write == STANDARD_OUTPUT and sys.stdout.isatty():
        raise typer.BadParameter("packets are not printed on a terminal; give --write FILE or pipe them to a program")
    if netns is not None and name.startswith(PREFIX):
        raise typer.BadParameter("a running pipe is found by its process id; --netns is for adapters")
    show_log(log_level(verbose, quiet))
    wanted = PacketFilter(expression) if expression is not None else None
    with closing(open_source(name, netns)) as source:
        file = CaptureWriter(write, source.name)
        live = LiveCapture(source, file, wanted)
        try:
            _run(live, source, file, count)
        finally:
            summary = live.summary._asdict()
            if json:
                typer.echo(jsonlib.dumps(summary), err=True)
            elif not quiet:
                complain(", ".join([f"{value} {name}" for name, value in summary.items()]))


def _run(live: "LiveCapture", source: "Source", file: "CaptureWriter", count: int | None) -> None:
    """Capture until the end, a signal or `count` packets, and complete the file."""
    from threepipe.capture.live import stopped_by_signals

    try:
        with stopped_by_signals(source):
            live.run(count)
    finally:
        try:
            file.close(live.summary.dropped)
        except BrokenPipeError:
            pass  # The reader has closed it.
