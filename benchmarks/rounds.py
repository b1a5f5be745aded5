"""Runs everything in turns: a round measures every contender once at every workload.

So what disturbs the machine for a while disturbs all alike, and each round begins with another contender.
"""

from collections.abc import Iterator, Sequence

from benchmarks.contenders import Contender
from benchmarks.network import Failed
from benchmarks.results import Results, Sample
from benchmarks.workloads import Workload

__all__ = ["Turn", "measure", "turns"]

Turn = tuple[int, Workload, Contender]


def turns(rounds: int, workloads: Sequence[Workload], contenders: Sequence[Contender]) -> Iterator[Turn]:
    """Every measurement of the run, in order."""
    for number in range(rounds):
        first = number % max(len(contenders), 1)
        for workload in workloads:
            for contender in (*contenders[first:], *contenders[:first]):
                if workload.kind in contender.kinds and workload.key not in contender.cannot:
                    yield number + 1, workload, contender


def measure(turn: Turn, seconds: int, results: Results) -> None:
    """Take one sample; a contender that fails does not end the run."""
    number, workload, contender = turn
    try:
        sample = Sample(number, workload.key, contender.key, workload.measure(contender, seconds))
    except Failed as failure:
        sample = Sample(number, workload.key, contender.key, {}, str(failure))
    results.samples.append(sample)
