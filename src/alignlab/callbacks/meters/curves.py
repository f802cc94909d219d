"""samples/curves.png: losses and validation metrics over steps."""

from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from alignlab.callbacks.meters.metrics_csv import LoggedRow, MetricsCsv
from alignlab.files.writing import replaced

Curve = tuple[list[float], list[float]]  # steps, values


class Curves(Callback):
    """Draws the rows of metrics.csv into `<run directory>/samples/curves.png` when training ends.

    Ranks: rank zero alone draws.
    """

    @rank_zero_only
    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCsv):
                draw(logger.rows, Path(trainer.default_root_dir) / "samples" / "curves.png")


def panels(rows: list[LoggedRow]) -> dict[str, dict[str, Curve]]:
    """Sorts the logged metrics into panels, title -> metric -> curve; panels without a curve are left out."""
    curves: dict[str, Curve] = {}
    for row in rows:
        for name, value in row.items():
            if "/" in name:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(value)
    sorted_in: dict[str, dict[str, Curve]] = {}
    for name, curve in sorted(curves.items()):
        sorted_in.setdefault(_panel(name), {})[name] = curve
    return {title: sorted_in[title] for title in ("losses", "retrieval", "accuracy", "other") if title in sorted_in}


def _panel(name: str) -> str:
    if "loss" in name:
        return "losses"
    return "retrieval" if "recall" in name else "accuracy" if "accuracy" in name else "other"


def draw(rows: list[LoggedRow], file: Path) -> None:
    """Writes the panels as one picture; nothing if nothing was logged."""
    from matplotlib.figure import Figure  # half a second, and needed once

    shown = {title: curves for title, curves in panels(rows).items() if title != "other"}
    if not shown:
        return
    figure = Figure(figsize=(6 * len(shown), 4), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        for name, (steps, values) in curves.items():
            axes.plot(steps, values, label=name, marker="o" if name.startswith("val/") else None, markersize=3)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    with replaced(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
