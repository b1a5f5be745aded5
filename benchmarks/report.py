"""The tables: medians of each workload, and what was reached of what is wanted."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.results import Results
from benchmarks.wanted import Reached, reached
from benchmarks.workloads import Metric, Workload

__all__ = ["print_report"]

_DIRECTION = {True: "more is better", False: "less is better"}
_SIGN = {True: "≥", False: "≤"}
_MET = {True: Text("yes", "green"), False: Text("no", "red")}


def print_report(
    console: Console, results: Results, workloads: Sequence[Workload], contenders: Sequence[Contender]
) -> None:
    for workload in workloads:
        console.print(_medians(results, workload, contenders), "")
    if outcomes := reached(results):
        console.print(_ratios(outcomes))


def _medians(results: Results, workload: Workload, contenders: Sequence[Contender]) -> Table:
    table = Table(title=f"{workload.key}: {workload.title}", title_justify="left", title_style="bold")
    table.add_column("median (least..greatest)", no_wrap=True)
    for metric in workload.metrics:
        heading = f"{metric.title}\n{metric.unit}\n{_DIRECTION[metric.more_is_better]}"
        table.add_column(heading, justify="right")
    for contender in (row for row in contenders if workload.kind in row.kinds):
        reason = _reason(results, workload, contender)
        cells = (
            [Text(reason, "dim")] if reason else [_figure(results, workload, contender, m) for m in workload.metrics]
        )
        table.add_row(contender.title, *cells)
    return table


def _reason(results: Results, workload: Workload, contender: Contender) -> str:
    """Why there is no figure at all; empty where there are some."""
    if reason := results.missing.get(contender.key) or contender.cannot.get(workload.key):
        return reason
    if any(results.by_round(workload.key, contender.key, metric.key) for metric in workload.metrics):
        return ""
    failures = results.failures(workload.key, contender.key)
    return f"failed: {failures[-1]}" if failures else "not measured"


def _figure(results: Results, workload: Workload, contender: Contender, metric: Metric) -> str:
    values = results.by_round(workload.key, contender.key, metric.key).values()
    median = results.median(workload.key, contender.key, metric.key)
    if median is None:
        return "-"
    digits = metric.digits if median >= 0.1 else 3
    failures = len(results.failures(workload.key, contender.key))
    failed = f", {failures} failed" if failures else ""
    return f"{median:.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f}{failed})"


def _ratios(outcomes: Sequence[Reached]) -> Table:
    table = Table(title="What is wanted: ratios of medians of this run", title_justify="left", title_style="bold")
    table.box, table.padding, table.pad_edge = SIMPLE_HEAD, (0, 1, 0, 0), False  # It fits 80 columns.
    for heading in ("figure", "of", "to"):
        table.add_column(heading)
    for heading in ("ratio", "in a round", "wanted"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("met")
    for outcome in outcomes:
        wanted = outcome.wanted
        base = CONTENDERS[outcome.base].title if outcome.base else "(itself)"
        table.add_row(
            f"{wanted.workload} {wanted.metric}",
            CONTENDERS[wanted.contender].title,
            f"{base}, {wanted.base_workload}" if wanted.base_workload else base,
            f"{outcome.value:.2f}",
            f"{outcome.least:.2f}..{outcome.greatest:.2f}",
            f"{_SIGN[outcome.at_least]} {wanted.bound:g}",
            _MET[outcome.met],
        )
    return table
