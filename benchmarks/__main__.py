"""The command line of the benchmarks: chooses the measurements, shows the progress, and writes the results."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.contenders import CONTENDERS, Contender, counterpart, described
from benchmarks.export import as_json
from benchmarks.goals import GOALS, no_slower, outcomes
from benchmarks.processes import ROOT
from benchmarks.results import Results
from benchmarks.runner import reversing, rotating, run
from benchmarks.tables import print_tables
from benchmarks.workloads import WORKLOADS

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
"""Debian's package of each tool."""
_INTERRUPTED = 128 + signal.SIGINT

_QUICK: dict[str, Any] = {
    "rounds": 3,
    "seconds": 1,
    "only": ["tcp4", "burst", "answer", "answer-bundles", "pipe-udp", "wg-tcp", "import"],
    "contender": ["threepipe-native", "threepipe-pure", "c-offload", "python-pytun", "socat", "wireguard-go"],
}
"""The defaults of `--quick`: a workload for each kind of use, and for each its most telling contender."""


def _one_of(known: Collection[str]) -> Callable[[list[str]], list[str]]:
    def check(chosen: list[str]) -> list[str]:
        for name in chosen:
            if name not in known:
                raise typer.BadParameter(f"unknown name {name!r}; expected one of {', '.join(known)}")
        return chosen

    return check


def _use_quick_defaults(context: typer.Context, chosen: bool) -> None:
    if chosen:
        context.default_map = _QUICK


Quick = Annotated[
    bool,
    typer.Option(
        "--quick",
        is_eager=True,
        callback=_use_quick_defaults,
        help="Measure the ratios that matter most, in three minutes; other options still count.",
    ),
]


def main(
    _: Quick = False,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 5,
    seconds: Annotated[int, typer.Option(min=1, help="Length of one transfer.")] = 3,
    only: Annotated[
        list[str],
        typer.Option(help=f"A workload; may be repeated: {', '.join(WORKLOADS)}.", callback=_one_of(WORKLOADS)),
    ] = [],  # noqa: B006
    contender: Annotated[
        list[str],
        typer.Option(help=f"May be repeated: {', '.join(CONTENDERS)}.", callback=_one_of(CONTENDERS)),
    ] = [],  # noqa: B006
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKOUT",
            exists=True,
            file_okay=False,
            resolve_path=True,
            help="Measure threepipe beside that of another checkout, which has its own .venv.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all samples to FILE; - for standard output.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw a picture, in the format of FILE's ending.")
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
    goals, order = list(GOALS), rotating
    if against:
        pairs = _pairs(contenders, against)
        contenders = [row for pair in pairs for row in pair]
        goals, order = no_slower(workloads, pairs), reversing
    results = Results()
    complete = run(results, rounds, seconds, workloads, contenders, order)
    reached = outcomes(results, goals)
    print_tables(console, results, workloads, contenders, reached)
    if json_file:
        settings = {"rounds": rounds, "seconds": seconds, "commit": described(ROOT)}
        text = json.dumps(as_json(results, workloads, contenders, reached, settings), indent=2) + "\n"
        sys.stdout.write(text) if to_stdout else json_file.write_text(text)
    if picture:
        from benchmarks.plot import plot  # Only a picture needs matplotlib.

        plot(results, workloads, contenders, picture)
    if not complete:
        console.print("Interrupted; the tables show the samples until then.")
        raise typer.Exit(_INTERRUPTED)


def _pairs(contenders: Collection[Contender], checkout: Path) -> list[tuple[Contender, Contender]]:
    """Return threepipe's contenders among these, each with its counterpart of another checkout."""
    commit = described(checkout)
    return [
        (row, counterpart(row, checkout, commit))
        for row in contenders
        if row.key in ("threepipe-native", "threepipe-pure")
    ]


def _check_machine(console: Console) -> None:
    """Exit with a message if this machine cannot run the benchmarks."""
    missing = sorted({package for tool, package in _PACKAGES.items() if shutil.which(tool) is None})
    if os.geteuid():
        console.print("The benchmarks make network namespaces and TUN interfaces; run this as root.")
    elif not os.path.exists("/dev/net/tun"):
        console.print("/dev/net/tun does not exist; run modprobe tun, or pass the device to the container.")
    elif missing:
        console.print(f"Tools are missing; run (Debian): apt-get install {' '.join(missing)}")
    else:
        return
    raise typer.Exit(2)


if __name__ == "__main__":
    # SIGTERM ends the run as Ctrl-C does: children are stopped in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    typer.run(main)
