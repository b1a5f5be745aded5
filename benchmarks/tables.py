"""The tables for the terminal: the medians of each workload, and the outcomes of the goals."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.contenders import Contender
from benchmarks.goals import Outcome
from benchmarks.results import Results
from benchmarks.workloads import Metric, Workload

__all__ = ["print_tables"]

_DIRECTION = {True: "more is better", False: "less is better"}
_SIGN = {True: "≥", False: "≤"}
_MET = {True: Text("yes", "green"), False: Text("no", "red")}


def print_tables(
    console: Console,
    results: Results,
    workloads: Sequence[Workload],
    contenders: Sequence[Contender],
    outcomes: Sequence[Outcome],
) -> None:
    """Print a table for each workload, and one of the goals' outcomes."""
    for workload in workloads:
        console.print(_medians(results, workload, contenders), "")
    if outcomes:
        console.print(_ratios(outcomes, {row.key: row.title for row in contenders}))


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
    """Return why the contender has no figure of this workload, or an empty string if it has one."""
    if reason := results.unavailable.get(contender.key) or contender.excluded.get(workload.key):
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


def _ratios(outcomes: Sequence[Outcome], titles: Mapping[str, str]) -> Table:
    table = Table(title="Goals: ratios of medians of this run", title_justify="left", title_style="bold")
    table.box, table.padding, table.pad_edge = SIMPLE_HEAD, (0, 1, 0, 0), False  # To fit 80 columns.
    for heading in ("figure", "of", "to"):
        table.add_column(heading)
    for heading in ("ratio", "in a round", "goal"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("met")
    for outcome in outcomes:
        goal = outcome.goal
        base = titles[outcome.base] if outcome.base else "(itself)"
        table.add_row(
            f"{goal.workload} {goal.metric}",
            titles[goal.contender],
            f"{base}, {goal.base_workload}" if goal.base_workload else base,
            f"{outcome.value:.2f}",
            f"{outcome.least:.2f}..{outcome.greatest:.2f}",
            f"{_SIGN[outcome.at_least]} {goal.bound:.3g}",
            _MET[outcome.met],
        )
    return table
