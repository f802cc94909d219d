"""Curves of each task as a PNG file, for pages and slides that take no SVG."""

import re
from pathlib import Path

import numpy as np

from alignlab.scaling.findings import Found, TaskFound
from alignlab.scaling.reading.ladder import Ladder

MOST = 9  # metrics of a picture


def draw(ladder: Ladder, told: list[TaskFound], folder: Path) -> list[Path]:
    """One picture a task, a panel a metric."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    files = []
    for task in told:
        found = task.curves[:MOST]
        wide = min(3, len(found))
        high = -(-len(found) // wide)
        figure = Figure(figsize=(4.2 * wide, 3.0 * high), dpi=100, layout="constrained")
        panels = figure.subplots(high, wide, squeeze=False).ravel()
        for panel, each in zip(panels, found, strict=False):
            _panel(panel, each, ladder.title)
        for panel in panels[len(found) :]:
            panel.axis("off")
        figure.suptitle(f"{task.task}: {task.verdict.code.replace('_', ' ')}", fontsize=11)
        file = folder / f"{re.sub(r'[^-.A-Za-z0-9]+', '_', task.task) or 'task'}.png"
        figure.savefig(file)
        files.append(file)
    return files


def _panel(panel: object, found: Found, title: str) -> None:
    own = found.curve
    low, high = own.intervals
    reach = np.maximum([own.values - low, high - own.values], 0)
    panel.errorbar(own.x, own.values, yerr=reach, fmt="o", color="tab:orange", ecolor="grey", capsize=3)
    if found.fits:
        places = np.geomspace(own.x[0], own.x[-1], 80)
        panel.plot(places, found.fits[0].at(places), color="tab:blue", linewidth=1)
    if own.metric.hits:
        panel.plot(own.x, own.ceiling_of_none, color="grey", linestyle="--", linewidth=0.8)
    if found.left_out is not None:
        told = found.left_out.expected
        panel.plot([told.x] * 2, [told.low, told.high], color="tab:blue", linewidth=5, alpha=0.35)
    way = "up" if own.metric.higher else "down"
    panel.set_title(f"{own.metric.name} ({way} is better): {found.shape.name.replace('_', ' ')}", fontsize=9)
    panel.set_xscale("log")
    panel.set_xlabel(title, fontsize=8)
    panel.tick_params(labelsize=8)
