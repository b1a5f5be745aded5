"""What was measured: every sample, and the medians of them. Knows no way to measure and none to show."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Results", "Sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: its figures by metric, or why there are none."""

    round: int
    workload: str
    contender: str
    figures: Mapping[str, float]
    failure: str = ""


@dataclass(slots=True)
class Results:
    """The samples of one run, and why some contenders could not be had."""

    samples: list[Sample] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def by_round(self, workload: str, contender: str, metric: str) -> dict[int, float]:
        return {
            sample.round: sample.figures[metric]
            for sample in self.samples
            if (sample.workload, sample.contender) == (workload, contender) and metric in sample.figures
        }

    def median(self, workload: str, contender: str, metric: str) -> float | None:
        values = self.by_round(workload, contender, metric).values()
        return statistics.median(values) if values else None

    def failures(self, workload: str, contender: str) -> list[str]:
        return [
            sample.failure
            for sample in self.samples
            if (sample.workload, sample.contender) == (workload, contender) and sample.failure
        ]
