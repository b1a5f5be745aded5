"""The figures as a picture, a panel for each that says how well a workload went: bars are medians, dots samples."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # Before pyplot is loaded: a picture is written, no window opened.

from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.contenders import Contender
from benchmarks.results import Results
from benchmarks.workloads import Metric, Workload

__all__ = ["plot"]

_OURS, _OTHERS = "tab:blue", "silver"
_COLUMNS = 2
_PANEL_INCHES = (6.5, 3.0)
_FORMATS = (".png", ".svg")
_LOGARITHMIC_FROM = 30.0
"""Where the worst time is this many times the best, bars of one scale would not show the best ones."""


def plot(results: Results, workloads: Sequence[Workload], contenders: Sequence[Contender], stem: Path) -> None:
    """Write STEM.png and STEM.svg."""
    panels = [(workload, metric) for workload in workloads for metric in workload.metrics if metric.key != "cores"]
    rows = math.ceil(len(panels) / _COLUMNS)
    size = (_PANEL_INCHES[0] * _COLUMNS, _PANEL_INCHES[1] * rows)
    figure, axes = pyplot.subplots(rows, _COLUMNS, figsize=size, squeeze=False, layout="constrained")
    for place, panel in zip(axes.flat, panels, strict=False):
        _draw(place, results, *panel, contenders)
    for place in axes.flat[len(panels) :]:
        place.remove()
    for ending in _FORMATS:
        figure.savefig(stem.with_name(stem.name + ending), dpi=120)
    pyplot.close(figure)


def _draw(place: Axes, results: Results, workload: Workload, metric: Metric, contenders: Sequence[Contender]) -> None:
    shown, medians = [], []
    for contender in contenders:
        median = results.median(workload.key, contender.key, metric.key)
        if median is not None:
            shown.append(contender)
            medians.append(median)
    names = [contender.title for contender in shown]
    colours = [_OURS if contender.key.startswith("threepipe") else _OTHERS for contender in shown]
    place.barh(names, medians, color=colours)
    for row, median in enumerate(medians):  # At the right border, where no dot is.
        place.text(1.01, row, f"{median:.3g}", transform=place.get_yaxis_transform(), va="center")
    for contender in shown:
        values = list(results.by_round(workload.key, contender.key, metric.key).values())
        place.plot(values, [contender.title] * len(values), ".", color="black", markersize=4, alpha=0.6)
    place.invert_yaxis()
    scale = ""
    if not metric.more_is_better and medians and max(medians) > _LOGARITHMIC_FROM * min(medians) > 0:
        place.set_xscale("log")
        scale = ", logarithmic"
    better = "more" if metric.more_is_better else "less"
    place.set_xlabel(f"{metric.title}, {metric.unit}{scale} ({better} is better)")
    place.set_title(f"{workload.key}: {workload.title}", fontsize=10)
