"""The figures of a report as PNG files, for slides and pages that take no SVG."""

import logging
import warnings
from pathlib import Path

from alignlab.studies.design.parameters import Parameter
from alignlab.studies.reading.study_data import StudyData, place
from alignlab.studies.statistics import best_of

CHINESE = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Source Han Sans SC", "Microsoft YaHei")
BEST = 3
MOST = 12  # parameters


def draw(data: StudyData, folder: Path) -> list[Path]:
    """One picture for each parameter, one of the curves, one of the best of n."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import font_manager
    from matplotlib.figure import Figure

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # forty lines of the fonts it could have had
    there = {font.name for font in font_manager.fontManager.ttflist}
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", *(name for name in CHINESE if name in there)]
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # boxes, where no font has them
    files = []
    figure = Figure(figsize=(5.6, 3.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    for each in data.parameters[:MOST]:
        axes.clear()
        _axis(axes, data, each)
        files.append(_saved(figure, folder / f"axis_{each.key.replace('/', '_')}.png"))
    axes.clear()
    for trial in data.feasible[:BEST]:
        if curve := data.curves.get(trial.trial):
            axes.plot(*zip(*curve, strict=True), label=f"trial {trial.trial}")
    if axes.lines:
        axes.set(xlabel="step", ylabel=data.metric.name)
        axes.legend()
        files.append(_saved(figure, folder / "curves.png"))
    if len(data.feasible) >= 4:
        axes.clear()
        counts = list(range(1, len(data.feasible) + 1))
        told = best_of([data.loss(trial) for trial in data.feasible], counts)
        low, middle, high = ([data.metric.loss(value) for value in column] for column in zip(*told, strict=True))
        axes.plot(counts, middle)
        axes.fill_between(counts, low, high, alpha=0.25)
        axes.set(xlabel="trials", ylabel=f"best {data.metric.name}")
        files.append(_saved(figure, folder / "best_of_n.png"))
    return files


def _axis(axes: object, data: StudyData, each: Parameter) -> None:
    good = [trial for trial in data.feasible if each.key in trial.point]
    bad = [trial for trial in data.infeasible if each.key in trial.point]
    if each.is_range:
        good, bad = ([t for t in part if place(each, t) == place(each, t)] for part in (good, bad))
        x = {trial.trial: float(trial.point[each.key]) for trial in (*good, *bad)}
        axes.set_xscale(each.scale)
    else:
        names = list(map(repr, each.values))
        x = {trial.trial: names.index(repr(trial.point[each.key])) for trial in (*good, *bad)}
        axes.set_xticks(range(len(names)), list(map(str, each.values)))
    values = [trial.value for trial in good]
    axes.scatter([x[trial.trial] for trial in good], values)
    if bad:
        top = max(values, default=1.0)
        axes.scatter([x[trial.trial] for trial in bad], [top] * len(bad), marker="x", color="tab:red")
    axes.set(xlabel=each.key, ylabel=data.metric.name)


def _saved(figure: object, file: Path) -> Path:
    figure.savefig(file)
    return file
