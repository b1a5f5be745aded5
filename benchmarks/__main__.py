"""The command line: chooses what is measured, shows how far it is, and hands the results on."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.plot import plot
from benchmarks.record import record
from benchmarks.report import print_report
from benchmarks.results import Results
from benchmarks.rounds import measure, turns
from benchmarks.workloads import WORKLOADS, Workload

_PACKAGES = {
    "ip": "iproute2",
    "iperf3": "iperf3",
    "nsenter": "util-linux",
    "ping": "iputils-ping",
    "setpriv": "util-linux",
    "socat": "socat",
    "unshare": "util-linux",
    "wg": "wireguard-tools",
}
_INTERRUPTED = 128 + signal.SIGINT
_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


def _among(known: Collection[str]) -> Callable[[list[str]], list[str]]:
    def check(chosen: list[str]) -> list[str]:
        for name in chosen:
            if name not in known:
                raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return check


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is measured.")] = 5,
    seconds: Annotated[int, typer.Option(min=1, help="How long one transfer takes.")] = 3,
    only: Annotated[
        list[str],
        typer.Option(help=f"A workload, may be repeated: {', '.join(WORKLOADS)}.", callback=_among(WORKLOADS)),
    ] = [],  # noqa: B006
    contender: Annotated[
        list[str],
        typer.Option(help=f"May be repeated: {', '.join(CONTENDERS)}.", callback=_among(CONTENDERS)),
    ] = [],  # noqa: B006
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all samples there; - for standard output.")
    ] = None,
    plot_stem: Annotated[
        Path | None, typer.Option("--plot", metavar="STEM", help="Draw STEM.png and STEM.svg.")
    ] = None,
) -> None:
    """Measure threepipe beside its peers and beside the limit, in turns, in one run."""
    to_stdout = json_file == Path("-")
    console = Console(stderr=to_stdout)
    _check_machine(console)
    workloads = [row for key, row in WORKLOADS.items() if not only or key in only]
    kinds = {row.kind for row in workloads}
    contenders = [
        row for key, row in CONTENDERS.items() if (not contender or key in contender) and kinds.intersection(row.kinds)
    ]
    results = Results()
    complete = _run(results, rounds, seconds, workloads, contenders)
    print_report(console, results, workloads, contenders)
    if json_file:
        text = json.dumps(record(results, workloads, contenders, rounds, seconds), indent=2) + "\n"
        sys.stdout.write(text) if to_stdout else json_file.write_text(text)
    if plot_stem:
        plot(results, workloads, contenders, plot_stem)
    if not complete:
        console.print("Interrupted; the tables have what was measured until then.")
        raise typer.Exit(_INTERRUPTED)


def _run(
    results: Results, rounds: int, seconds: int, workloads: Sequence[Workload], contenders: Sequence[Contender]
) -> bool:
    """Measure; False where the user had enough before the end. Nothing is left running then."""
    with Progress(*_COLUMNS, console=Console(stderr=True)) as progress:
        task = progress.add_task("preparing", total=None)
        try:
            for contender in contenders:
                progress.update(task, description=f"preparing {contender.title}")
                if reason := contender.prepare(contender.environment):
                    results.missing[contender.key] = reason
            plan = list(turns(rounds, workloads, [row for row in contenders if row.key not in results.missing]))
            progress.update(task, total=len(plan))
            for turn in plan:
                number, workload, contender = turn
                progress.update(task, description=f"round {number} of {rounds}: {workload.key}, {contender.title}")
                measure(turn, seconds, results)
                progress.advance(task)
        except KeyboardInterrupt:
            return False
    return True


def _check_machine(console: Console) -> None:
    """End with a sentence where nothing could be measured."""
    missing = sorted({package for tool, package in _PACKAGES.items() if shutil.which(tool) is None})
    if os.geteuid():
        console.print("Network namespaces and TUN interfaces are made here: run this as root.")
    elif not os.path.exists("/dev/net/tun"):
        console.print("There is no /dev/net/tun here: modprobe tun, or give it to the container.")
    elif missing:
        console.print(f"Missing (Debian: apt-get install): {' '.join(missing)}")
    else:
        return
    raise typer.Exit(2)


if __name__ == "__main__":
    # A polite end by another program is that of Ctrl-C: children are stopped in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    typer.run(main)
