"""The table of goals for threepipe, as ratios of medians of one run, and the outcomes.

A missed goal is shown and nothing more: on a noisy machine a person must judge it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.contenders import PYTHON_PEERS, WIREGUARD_PEERS, Contender
from benchmarks.results import Results
from benchmarks.workloads import WORKLOADS, Workload

__all__ = ["GOALS", "Goal", "Outcome", "no_slower", "outcomes"]

_NATIVE, _PURE = "threepipe-native", "threepipe-pure"
_BOTH = (_NATIVE, _PURE)
_NO_SLOWER = 0.97
"""The least ratio to another checkout."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for a figure of `contender`: for its ratio to the best of `bases`, or for itself if there are none."""

    workload: str
    metric: str
    contender: str
    bases: tuple[str, ...]
    bound: float
    base_workload: str = ""
    """The workload of the bases' figure, if it is another one."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The ratio of the medians, and the least and the greatest ratio of a round."""

    goal: Goal
    base: str
    value: float
    least: float
    greatest: float

    @property
    def at_least(self) -> bool:
        """True if the bound is the least value that meets the goal, not the greatest."""
        return _more_is_better(self.goal)

    @property
    def met(self) -> bool:
        return self.value >= self.goal.bound if self.at_least else self.value <= self.goal.bound


_TCP_BASES = (("python-pytun", 5.0), ("pytun-pmd3", 5.0), ("tun-rs", 1.6))
_TCP_LIMITS = ((_NATIVE, 0.97), (_PURE, 0.95))

_STREAMS = ("wg-tcp", "wg-reverse", "wg-both")

GOALS = (
    *(
        Goal(workload, "gbit", contender, ("c-offload",), bound)
        for workload in ("tcp4", "tcp6")
        for contender, bound in _TCP_LIMITS
    ),
    *(
        Goal(workload, "gbit", contender, (base,), bound)
        for workload in ("tcp4", "tcp6")
        for contender in _BOTH
        for base, bound in _TCP_BASES
    ),
    Goal("udp", "cpu", _NATIVE, ("c-plain",), 1.0),
    Goal("udp", "cpu", _PURE, ("c-plain",), 1.1),
    Goal("look", "gbit", _NATIVE, ("c-offload",), 0.5, base_workload="tcp4"),
    *(Goal("look", "gbit", contender, PYTHON_PEERS, bound) for contender, bound in ((_NATIVE, 3.0), (_PURE, 1.0))),
    Goal("answer", "kpps", _NATIVE, ("python-pytun",), 1.3),
    Goal("answer", "kpps", _PURE, ("python-pytun",), 0.8),
    Goal("answer", "cpu", _NATIVE, ("c-plain",), 1.5),
    *(
        Goal("answer-bundles", "kpps", contender, ("python-pytun",), bound, base_workload="answer")
        for contender, bound in ((_NATIVE, 2.0), (_PURE, 1.0))
    ),
    *(
        Goal("answer-asyncio", "kpps", contender, (contender,), 0.9, base_workload="answer-bundles")
        for contender in _BOTH
    ),
    *(Goal(workload, "late", contender, (), 100.0) for workload in ("burst", "wg-burst") for contender in _BOTH),
    *(Goal("burst", "running", contender, ("tun-rs",), 1.0) for contender in _BOTH),
    *(Goal("wg-burst", "running", contender, ("wireguard-go",), 1.0) for contender in _BOTH),
    *(Goal("rtt", "us", contender, ("c-offload",), 1.1) for contender in _BOTH),
    *(Goal(workload, "gbit", _NATIVE, ("socat",), 10.0) for workload in ("pipe-udp", "pipe-unix")),
    *(
        Goal(workload, "gbit", _NATIVE, (_NATIVE,), bound, base_workload="wg-tcp")
        for workload, bound in (("pipe-udp", 1.2), ("pipe-unix", 1.2), ("pipe-tls", 0.7))
    ),
    *(
        Goal(workload, "us", contender, ("socat",), bound, base_workload=base)
        for workload, base in (("pipe-udp", ""), ("pipe-unix", ""), ("pipe-tcp", "pipe-udp"))
        for contender, bound in ((_NATIVE, 1.2), (_PURE, 2.5))
    ),
    Goal("wg-start", "ms", _NATIVE, ("wireguard-go",), 1.5),
    Goal("wg-start", "mib", _NATIVE, (), 35.0),
    Goal("wg-vxlan", "gbit", _NATIVE, ("wireguard-go",), 3.0),
    *(Goal(workload, "gbit", _NATIVE, WIREGUARD_PEERS, 2.3) for workload in _STREAMS),
    *(Goal(workload, "cpu", _NATIVE, WIREGUARD_PEERS, 0.7) for workload in _STREAMS),
    Goal("wg-udp", "kpps", _NATIVE, WIREGUARD_PEERS, 1.25),
    *(
        Goal(f"wg-udp-{count}", "cpu", contender, (contender,), 1.15, base_workload="wg-udp")
        for count in (1000, 10000)
        for contender in _BOTH
    ),
    # With few peers, one write may carry a run of packets for each, so 10 peers are not a base.
    *(
        Goal("wg-spread-10000", "cpu", contender, (contender,), 1.15, base_workload="wg-spread-1000")
        for contender in _BOTH
    ),
    Goal("wg-rtt", "us", _NATIVE, WIREGUARD_PEERS, 1.0),
    *(Goal("wg-tcp", "gbit", _PURE, (base,), 1.5) for base in ("boringtun", "wireguard-go-debian")),
    *(Goal("import", "ms", contender, (), 25.0) for contender in _BOTH),
)


def no_slower(workloads: Iterable[Workload], pairs: Iterable[tuple[Contender, Contender]]) -> list[Goal]:
    """Return a goal for every figure that both of a pair have: the first is at most 3 % worse than the second."""
    return [
        Goal(
            workload.key,
            metric.key,
            contender.key,
            (base.key,),
            _NO_SLOWER if metric.more_is_better else 1 / _NO_SLOWER,
        )
        for workload in workloads
        for contender, base in pairs
        for metric in workload.metrics
        if not metric.background
    ]


def outcomes(results: Results, goals: Iterable[Goal]) -> list[Outcome]:
    """Return the outcome of each goal with both sides measured."""
    return [outcome for goal in goals if (outcome := _outcome(results, goal)) is not None]


def _outcome(results: Results, goal: Goal) -> Outcome | None:
    own = results.by_round(goal.workload, goal.contender, goal.metric)
    value = results.median(goal.workload, goal.contender, goal.metric)
    if value is None:
        return None
    if not goal.bases:
        return Outcome(goal, "", value, min(own.values()), max(own.values()))
    workload = goal.base_workload or goal.workload
    medians = {base: results.median(workload, base, goal.metric) for base in goal.bases}
    known = {base: median for base, median in medians.items() if median is not None}
    if not known:
        return None
    base = (max if _more_is_better(goal) else min)(known, key=known.__getitem__)
    others = results.by_round(workload, base, goal.metric)
    ratios = [own[number] / others[number] for number in own.keys() & others.keys()]
    ratio = value / known[base]
    return Outcome(goal, base, ratio, min(ratios, default=ratio), max(ratios, default=ratio))


def _more_is_better(goal: Goal) -> bool:
    return next(metric.more_is_better for metric in WORKLOADS[goal.workload].metrics if metric.key == goal.metric)
