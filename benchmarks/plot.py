"""The picture of a run: a panel for each figure, in which bars are medians and dots are samples.

Draw one from a file of results by: python -m benchmarks.plot RESULTS.json PICTURE.svg
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # Writes files and opens no window; must be chosen before pyplot is loaded.

from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.export import load
from benchmarks.results import Results
from benchmarks.workloads import Metric, Workload

__all__ = ["plot"]

_OURS, _OTHERS = "tab:blue", "silver"
_COLUMNS = 2
_PANEL_INCHES = (6.5, 3.0)
_LOGARITHMIC_FROM = 30.0
"""From this ratio of the worst time to the best, the scale is logarithmic, for the best bars would not be seen."""


def plot(results: Results, workloads: Sequence[Workload], contenders: Sequence[Contender], file: Path) -> None:
    """Draw the picture in the format that the file's name ends with."""
    panels = [(workload, metric) for workload in workloads for metric in workload.metrics if not metric.background]
    # Text stays text, which is smaller than outlines; the same results are drawn as the same file.
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "threepipe", "font.sans-serif": ["DejaVu Sans"]})
    rows = math.ceil(len(panels) / _COLUMNS)
    size = (_PANEL_INCHES[0] * _COLUMNS, _PANEL_INCHES[1] * rows)
    figure, axes = pyplot.subplots(rows, _COLUMNS, figsize=size, squeeze=False, layout="constrained")
    for place, panel in zip(axes.flat, panels, strict=False):
        _draw(place, results, *panel, contenders)
    for place in axes.flat[len(panels) :]:
        place.remove()
    figure.savefig(file, dpi=120, metadata={"Date": None} if file.suffix == ".svg" else None)
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
    for row, median in enumerate(medians):  # At the right border, where there are no dots.
        place.text(1.01, row, f"{median:.3g}", transform=place.get_yaxis_transform(), va="center")
    samples = [
        (value, contender.title)
        for contender in shown
        for value in results.by_round(workload.key, contender.key, metric.key).values()
    ]
    if samples:
        place.plot(*zip(*samples, strict=True), ".", color="black", markersize=4, alpha=0.6)
    place.invert_yaxis()
    scale = ""
    if not metric.more_is_better and medians and max(medians) > _LOGARITHMIC_FROM * min(medians) > 0:
        place.set_xscale("log")
        scale = ", logarithmic"
    better = "more" if metric.more_is_better else "less"
    place.set_xlabel(f"{metric.title}, {metric.unit}{scale} ({better} is better)")
    place.set_title(f"{workload.key}: {workload.title}", fontsize=10)


if __name__ == "__main__":
    source, picture = map(Path, sys.argv[1:])
    results, workloads = load(source)
    kinds = {workload.kind for workload in workloads}
    plot(results, workloads, [row for row in CONTENDERS.values() if kinds.intersection(row.kinds)], picture)
