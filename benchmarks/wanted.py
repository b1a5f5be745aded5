"""The table of what threepipe has to reach, as ratios of medians of one run, and what was reached.

A bound that is missed is shown and nothing more: on a noisy machine it is for a person to judge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.contenders import PYTHON_PEERS, WIREGUARD_PEERS
from benchmarks.results import Results
from benchmarks.workloads import WORKLOADS

__all__ = ["Reached", "Wanted", "reached"]

_NATIVE, _PURE = "threepipe-native", "threepipe-pure"
_BOTH = (_NATIVE, _PURE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A bound for a figure of `contender`: as a ratio to that of the best of `bases`, or for itself."""

    workload: str
    metric: str
    contender: str
    bases: tuple[str, ...]
    bound: float
    base_workload: str = ""
    """Where the bases' figure is of another workload."""


@dataclass(frozen=True, slots=True)
class Reached:
    """What came out: the ratio of the medians, and the least and the greatest ratio of a round."""

    wanted: Wanted
    base: str
    value: float
    least: float
    greatest: float

    @property
    def at_least(self) -> bool:
        return _more_is_better(self.wanted)

    @property
    def met(self) -> bool:
        return self.value >= self.wanted.bound if self.at_least else self.value <= self.wanted.bound


_TCP_BASES = (("c-offload", 0.95), ("python-pytun", 5.0), ("pytun-pmd3", 5.0), ("tun-rs", 1.6))

_STREAMS = ("wg-tcp", "wg-reverse", "wg-both")

WANTED = (
    *(
        Wanted(workload, "gbit", contender, (base,), bound)
        for workload in ("tcp4", "tcp6")
        for contender in _BOTH
        for base, bound in _TCP_BASES
    ),
    Wanted("udp", "cpu", _NATIVE, ("c-plain",), 1.0),
    Wanted("udp", "cpu", _PURE, ("c-plain",), 1.1),
    Wanted("look", "gbit", _NATIVE, ("c-offload",), 0.3, base_workload="tcp4"),
    Wanted("look", "gbit", _NATIVE, PYTHON_PEERS, 3.0),
    *(Wanted("rtt", "us", contender, ("c-offload",), 1.1) for contender in _BOTH),
    *(Wanted(workload, "gbit", _NATIVE, ("socat",), 3.0) for workload in ("pipe-udp", "pipe-unix")),
    *(Wanted(workload, "gbit", _NATIVE, WIREGUARD_PEERS, 1.4) for workload in _STREAMS),
    *(Wanted(workload, "cpu", _NATIVE, WIREGUARD_PEERS, 0.7) for workload in _STREAMS),
    Wanted("wg-udp", "kpps", _NATIVE, WIREGUARD_PEERS, 1.25),
    *(
        Wanted(f"wg-udp-{count}", "cpu", contender, (contender,), 1.15, base_workload="wg-udp")
        for count in (1000, 10000)
        for contender in _BOTH
    ),
    # To few peers, what is sent in one go may be runs for each.
    *(
        Wanted("wg-spread-10000", "cpu", contender, (contender,), 1.15, base_workload="wg-spread-1000")
        for contender in _BOTH
    ),
    Wanted("wg-rtt", "us", _NATIVE, WIREGUARD_PEERS, 1.0),
    *(Wanted("wg-tcp", "gbit", _PURE, (base,), 1.5) for base in ("boringtun", "wireguard-go-debian")),
    *(Wanted("import", "ms", contender, (), 40.0) for contender in _BOTH),
)


def reached(results: Results, wanted: Sequence[Wanted] = WANTED) -> list[Reached]:
    """What came out of each that was measured on both sides."""
    return [outcome for row in wanted if (outcome := _reached(results, row)) is not None]


def _reached(results: Results, row: Wanted) -> Reached | None:
    own = results.by_round(row.workload, row.contender, row.metric)
    value = results.median(row.workload, row.contender, row.metric)
    if value is None:
        return None
    if not row.bases:
        return Reached(row, "", value, min(own.values()), max(own.values()))
    workload = row.base_workload or row.workload
    medians = {base: results.median(workload, base, row.metric) for base in row.bases}
    known = {base: median for base, median in medians.items() if median is not None}
    if not known:
        return None
    base = (max if _more_is_better(row) else min)(known, key=known.__getitem__)
    others = results.by_round(workload, base, row.metric)
    ratios = [own[number] / others[number] for number in own.keys() & others.keys()]
    ratio = value / known[base]
    return Reached(row, base, ratio, min(ratios, default=ratio), max(ratios, default=ratio))


def _more_is_better(row: Wanted) -> bool:
    return next(metric.more_is_better for metric in WORKLOADS[row.workload].metrics if metric.key == row.metric)
