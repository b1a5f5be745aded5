"""The command line: measures threepipe on Windows' Python beside pytun-pmd3, on one contract library.

It needs neither Windows nor the driver, and compares the path from a ring to the program and back.
"""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.processes import ROOT, Failed, output
from benchmarks.results import Results, Sample

_CONTENDERS = {
    "core": "threepipe, native core",
    "bundles": "threepipe, pure Python",
    "core singles": "threepipe, native core, packet by packet",
    "singles": "threepipe, pure Python, packet by packet",
    "pytun-pmd3": "pytun-pmd3",
}
_PEER = "pytun-pmd3"
_WORKLOADS = ("receive", "send", "echo")
_GOAL = 2.0
"""The least ratio to the peer's packets per second, by ctypes alone."""

_FAULTS = {"close": "closing wakes a receiver", "full": "survives a full ring"}
_TIMEOUT = 120.0


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time that each loop runs.")] = 1.0,
    size: Annotated[int, typer.Option(min=20, max=2000, help="Bytes per packet.")] = 100,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all samples to FILE.")] = None,
) -> None:
    """Measure threepipe's loops on Windows beside pytun-pmd3's, in turns, in one run."""
    results = Results()
    contenders = list(_CONTENDERS)
    for number in range(rounds):
        # Each round begins with another contender.
        for contender in contenders[number % len(contenders) :] + contenders[: number % len(contenders)]:
            _measure(results, number, "measure", contender, seconds, size)
    for fault in _FAULTS:
        for contender in contenders:
            _measure(results, 0, fault, contender, 0.5, size)
    console = Console()
    for workload in _WORKLOADS:
        console.print(_figures(results, workload, size))
    console.print(_faults(results))
    if json_file:
        samples = [{"round": each.round, **_described(each)} for each in results.samples]
        json_file.write_text(json.dumps(samples, indent=2) + "\n")


def _measure(results: Results, number: int, role: str, contender: str, seconds: float, size: int) -> None:
    try:
        results.samples.append(Sample(number, role, contender, _worker(contender, role, str(seconds), str(size))))
    except Failed as error:
        results.samples.append(Sample(number, role, contender, {}, str(error)))


def _worker(*arguments: str) -> Mapping[str, float]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        windows = ["env", f"THREEPIPE_PEER_FOLDER=Z:{folder}", sys.executable, str(ROOT / "tools" / "windows")]
        core = ["--native"] if arguments[0].startswith("core") else []
        printed = output([*windows, *core, "--python", "-m", "benchmarks.windows.worker", *arguments], _TIMEOUT)
    figures: dict[str, float] = json.loads(printed.strip().splitlines()[-1])
    return figures


def _figures(results: Results, workload: str, size: int) -> Table:
    table = Table(title=f"{workload}, packets of {size} bytes: medians (least..greatest)", title_justify="left")
    for heading in ("", "1000 packets/s", "us of CPU per packet", f"ratio to {_PEER} (goal: {_GOAL:g})"):
        table.add_column(heading, justify="right" if heading else "left")
    for contender, title in _CONTENDERS.items():
        rate, peer = (results.median("measure", key, f"{workload} kpps") for key in (contender, _PEER))
        ratio = f"{rate / peer:.2f}" if rate and peer else "-"
        cells = [_spread(results, contender, f"{workload} {unit}") for unit in ("kpps", "us")]
        table.add_row(title, *cells, ratio)
    return table


def _spread(results: Results, contender: str, metric: str) -> str:
    values = results.by_round("measure", contender, metric).values()
    if not values:
        return "; ".join(results.failures("measure", contender)[-1:]) or "-"
    return f"{statistics.median(values):.1f} ({min(values):.1f}..{max(values):.1f})"


def _faults(results: Results) -> Table:
    table = Table(title="Faults", title_justify="left")
    table.add_column("")
    for title in _FAULTS.values():
        table.add_column(title)
    for contender, title in _CONTENDERS.items():
        table.add_row(title, *(_outcome(results, fault, contender) for fault in _FAULTS))
    return table


def _outcome(results: Results, fault: str, contender: str) -> str:
    (sample,) = [each for each in results.samples if (each.workload, each.contender) == (fault, contender)]
    if sample.failure:
        return f"no: {sample.failure}"
    return "yes" if all(sample.figures.values()) else "no"


def _described(sample: Sample) -> dict[str, object]:
    return {
        "workload": sample.workload,
        "contender": sample.contender,
        "figures": dict(sample.figures),
        "failure": sample.failure,
    }


if __name__ == "__main__":
    os.chdir(ROOT)
    typer.run(main)
