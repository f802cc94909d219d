"""Gold judge and proxy over KL as a page."""

import json
from pathlib import Path

import numpy as np

from alignlab.files.writing import write_text
from alignlab.reports.page import Figure, Note, Page, Section, render
from alignlab.scaling.overoptimisation import Optimised, law
from alignlab.studies.showing.figures import BAR, OTHER, SOFT, Axes


def write(told: Optimised, folder: Path) -> Path:
    """Writes overoptimisation.html and .json; returns the page."""
    points = told.points
    numbers = {"verdict": told.code, "text": told.text, "support": told.support, "proxy": told.proxy, "gold": told.gold}
    numbers |= {"peak_kl": told.peak, "kl": points.kl.tolist(), "run": points.run.tolist()}
    numbers |= {"proxy_gain": points.proxy.tolist(), "gold_gain": points.gold.tolist()}
    write_text(folder / "overoptimisation.json", json.dumps(numbers, indent=2, allow_nan=False) + "\n")
    runs = len(set(points.run.tolist()))
    lead = f"{len(points.kl)} validations of {runs} run{'s' * (runs > 1)}."
    sections = [Section("Gold judge and proxy over KL", [Note(told.text, warns=True), _figure(told)])]
    write_text(folder / "overoptimisation.html", render(Page("Over-optimisation", lead, sections)))
    return folder / "overoptimisation.html"


def _figure(told: Optimised) -> Figure:
    points = told.points
    values = np.concatenate([points.proxy, points.gold])
    pad = 0.04 * float(np.ptp(values)) or 0.1
    extent = (float(values.min()) - pad, float(values.max()) + pad)
    axes = Axes((0.0, float(points.kl.max()) or 1.0), extent, x_title="KL from the start, nats")
    axes.dots(list(zip(points.kl, points.proxy, strict=True)), BAR)
    axes.dots(list(zip(points.kl, points.gold, strict=True)), OTHER)
    if any(told.gold):
        d = np.sqrt(np.linspace(0, points.kl.max(), 80)[1:])
        axes.line(list(zip(d**2, law(d, *told.proxy), strict=True)), BAR)
        axes.line(list(zip(d**2, law(d, *told.gold), strict=True)), OTHER)
    if told.peak is not None:
        axes.line([(told.peak[0], extent[0]), (told.peak[0], extent[1])], SOFT, 1.0, "4 4")
    return Figure(
        axes.picture(),
        "Gain over the start: proxy (blue), gold judge (orange), each on its own scale; lines: d (a - b log d), "
        "d = √KL; dashed: where the gold judge turns.",
    )
