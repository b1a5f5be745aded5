"""Runs the measurements in turns: a round measures every contender once at every workload.

A disturbance of the machine then falls on all contenders alike. Each round has another order.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.contenders import Contender
from benchmarks.processes import Failed
from benchmarks.results import Results, Sample
from benchmarks.workloads import Workload

__all__ = ["Order", "reversing", "rotating", "run"]

Order = Callable[[Sequence[Contender], int], Sequence[Contender]]
"""Returns the contenders in the order of a round; the first round is 0."""

_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


class _Turn(NamedTuple):
    round: int
    workload: Workload
    contender: Contender


def rotating(contenders: Sequence[Contender], number: int) -> Sequence[Contender]:
    """Begin each round with another contender."""
    first = number % max(len(contenders), 1)
    return [*contenders[first:], *contenders[:first]]


def reversing(contenders: Sequence[Contender], number: int) -> Sequence[Contender]:
    """Keep neighbours together, and let each go first in every other round."""
    return contenders[::-1] if number % 2 else contenders


def run(
    results: Results,
    rounds: int,
    seconds: int,
    workloads: Sequence[Workload],
    contenders: Sequence[Contender],
    order: Order = rotating,
) -> bool:
    """Prepare the contenders and take all samples. Return False if the user interrupted it."""
    with Progress(*_COLUMNS, console=Console(stderr=True)) as progress:
        task = progress.add_task("preparing", total=None)
        try:
            for contender in contenders:
                progress.update(task, description=f"preparing {contender.title}")
                if reason := contender.prepare(contender.python):
                    results.unavailable[contender.key] = reason
            available = [row for row in contenders if row.key not in results.unavailable]
            turns = list(_turns(rounds, workloads, available, order))
            progress.update(task, total=len(turns))
            for turn in turns:
                text = f"round {turn.round} of {rounds}: {turn.workload.key}, {turn.contender.title}"
                progress.update(task, description=text)
                results.samples.append(_sample(turn, seconds))
                progress.advance(task)
        except KeyboardInterrupt:
            return False
    return True


def _turns(
    rounds: int, workloads: Sequence[Workload], contenders: Sequence[Contender], order: Order
) -> Iterator[_Turn]:
    for number in range(rounds):
        for workload in workloads:
            for contender in order(contenders, number):
                if workload.kind in contender.kinds and workload.key not in contender.excluded:
                    yield _Turn(number + 1, workload, contender)


def _sample(turn: _Turn, seconds: int) -> Sample:
    """Take one sample; a contender that fails does not end the run."""
    try:
        return Sample(turn.round, turn.workload.key, turn.contender.key, turn.workload.measure(turn.contender, seconds))
    except Failed as failure:
        return Sample(turn.round, turn.workload.key, turn.contender.key, {}, str(failure))
