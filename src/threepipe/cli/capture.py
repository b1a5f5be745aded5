"""`threepipe capture`: what goes through an adapter or a running pipe, as pcapng.

Opens, moves and counts by the library, and prints the summary.
"""

import json as jsonlib
import sys
from typing import Annotated

import typer

from threepipe.cli.output import complain

__all__ = ["capture"]

STANDARD_OUTPUT = "-"


def capture(
    name: Annotated[
        str, typer.Argument(help="Name of the adapter, or pipe:PID for a running pipe.", show_default=False)
    ],
    write: Annotated[
        str, typer.Option(metavar="FILE", help="Where to write pcapng to; by default standard output.")
    ] = STANDARD_OUTPUT,
    netns: Annotated[
        str | None,
        typer.Option(metavar="NAMESPACE", help="Network namespace it is in: a name, a path or a process id."),
    ] = None,
    count: Annotated[
        int | None, typer.Option(metavar="PACKETS", min=1, help="End after so many packets.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, for programs.")] = False,
) -> None:
    """Capture packets as pcapng, which Wireshark and tcpdump read.

    Ctrl-C ends it. Packets have the direction that the system sees: what it
    sends into the adapter is outbound. How many there were is said on
    standard error. The pipes that run are listed by
    threepipe-extcap --extcap-interfaces.

    Examples:
      threepipe capture tp0 --write tp0.pcapng
      threepipe capture tp0 | tshark -r -
      threepipe capture pipe:4242 --count 100 | tcpdump -r -
    """
    from threepipe.capture.file import CaptureFile
    from threepipe.capture.live import Recording, open_source, stopped_by_signals
    from threepipe.capture.running import PREFIX

    if write == STANDARD_OUTPUT and sys.stdout.isatty():
        raise typer.BadParameter("packets are not for a terminal; say --write FILE, or pipe them into a program")
    if netns is not None and name.startswith(PREFIX):
        raise typer.BadParameter("a running pipe is found by its process; --netns is for adapters")
    source = open_source(name, netns)
    try:
        file = CaptureFile(write, source.name)
        recording = Recording(source, file)
        try:
            with stopped_by_signals(source):
                recording.run(count)
        finally:
            try:
                file.close(recording.summary.dropped)
            except BrokenPipeError:
                pass  # Who reads it has left.
            summary = recording.summary._asdict()
            if json:
                typer.echo(jsonlib.dumps(summary), err=True)
            else:
                complain(", ".join([f"{value} {what}" for what, value in summary.items()]))
    finally:
        source.close()
