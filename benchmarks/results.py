"""The samples of a run and their medians. Neither measures nor shows anything."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Results", "Sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: its figures by metric, or the reason why it has none."""

    round: int
    workload: str
    contender: str
    figures: Mapping[str, float]
    failure: str = ""


@dataclass(slots=True)
class Results:
    """The samples of one run, and why some contenders were not available."""

    samples: list[Sample] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)

    def by_round(self, workload: str, contender: str, metric: str) -> dict[int, float]:
        """Return one figure by round; a round that failed is left out."""
        return {
            sample.round: sample.figures[metric]
            for sample in self.samples
            if (sample.workload, sample.contender) == (workload, contender) and metric in sample.figures
        }

    def median(self, workload: str, contender: str, metric: str) -> float | None:
        """Return the median over all rounds, or None without a sample."""
        values = self.by_round(workload, contender, metric).values()
        return statistics.median(values) if values else None

    def failures(self, workload: str, contender: str) -> list[str]:
        """Return the reasons why rounds failed."""
        return [
            sample.failure
            for sample in self.samples
            if (sample.workload, sample.contender) == (workload, contender) and sample.failure
        ]
