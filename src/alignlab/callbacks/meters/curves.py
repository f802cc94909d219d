"""samples/curves.png: losses and validation metrics over steps; of reinforcement learning score, KL and length too."""

from pathlib import Path
from typing import TYPE_CHECKING

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from alignlab.callbacks.meters.metrics_csv import LoggedRow, MetricsCsv
from alignlab.files.writing import replaced
from alignlab.reports.curves import legible, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Curves(Callback):
    """Draws the rows of metrics.csv into `<run directory>/samples/curves.png` when training ends.

    Ranks: rank zero alone draws.
    """

    @rank_zero_only
    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCsv):
                draw(logger.rows, Path(trainer.default_root_dir) / "samples" / "curves.png")


def draw(rows: list[LoggedRow], file: Path) -> None:
    """Writes the panels as one picture; nothing if nothing was logged."""
    if (figure := drawn(rows)) is not None:
        with replaced(file) as temporary:
            figure.savefig(temporary, dpi=110, format="png", bbox_inches="tight")  # legends may be wider


def drawn(rows: list[LoggedRow]) -> "Figure | None":
    """The panels side by side, their legends below them; None if nothing was logged."""
    from matplotlib.figure import Figure  # half a second, and needed once

    shown = {title: legible(curves) for title, curves in panels(rows).items() if title != "other"}
    if not shown:
        return None
    columns = min(len(shown), 3)
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(6 * columns, 5 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, (title, curves) in zip(grid, shown.items(), strict=False):
        of_one_kind = list(dict.fromkeys(name.partition("/")[2] for name in curves))  # train/x and val/x: one colour
        for name, (steps, values) in curves.items():
            colour = f"C{of_one_kind.index(name.partition('/')[2]) % 10}"
            held_out = {"marker": "o", "markersize": 3} if name.startswith("val/") else {"linewidth": 1, "alpha": 0.6}
            axes.plot(steps, values, label=name, color=colour, **held_out)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18)}  # no curve is below the axes
        axes.legend(fontsize=7, ncols=2 if len(curves) > 3 else 1, frameon=False, **place)
    for axes in grid[len(shown) :]:
        axes.remove()
    return figure
