"""A ladder: models in order of size, and the curves of every task and metric over them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.scaling.curve import Curve
from alignlab.scaling.metrics import METRICS, Item, Metric, part
from alignlab.scaling.reading.items import Items, files_of, read_items
from alignlab.scaling.reading.kinds import TITLES, Kind
from alignlab.scaling.reading.places import expanded, runs_below
from alignlab.scaling.reading.sizes import Left, size_of
from alignlab.scaling.reading.tables import read_table

ITEMS = 5  # of a curve, at least
_TEXT = ("edit_distance", "token_accuracy")  # mean nothing where a target is one of several options


@dataclass
class Ladder:
    """Curves over the sizes of models.

    Attributes:
        title: of the axis.
        curves: of every task and metric.
        problems: what was left out and why, a line each.
        sources: files that were read.
        models: name and size of each model.
    """

    title: str
    curves: list[Curve] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    sources: list[Path] = field(default_factory=list)
    models: list[tuple[str, float]] = field(default_factory=list)

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(curve.task for curve in self.curves))

    def of(self, task: str) -> list[Curve]:
        """The curves of a task."""
        return [curve for curve in self.curves if curve.task == task]


def read(
    places: Sequence[str], kind: Kind = "params", tasks: Sequence[str] = (), metrics: Sequence[str] = ()
) -> Ladder:
    """The ladder of run directories, of folders and patterns of such, or of one table.

    Args:
        tasks, metrics: names of those to keep; all where there are none.
    Raises:
        ValueError: one line: nothing to read, no such task or metric, directions that don't agree.
    """
    found = [path for place in places for path in expanded(place)]
    tables = [path for path in found if path.is_file()]
    if tables and (len(found) > 1):
        raise ValueError(f"one table alone, or run directories: {', '.join(map(str, found[:4]))}")
    if tables:
        curves, problems = read_table(tables[0])
        ladder = Ladder("x", curves, problems, tables)
        ladder.models = list(dict.fromkeys((n, float(x)) for c in curves for n, x in zip(c.names, c.x, strict=True)))
    else:
        ladder = _of_runs(
            [run for path in found for run in runs_below(path, lambda run: bool(files_of(run)))], places, kind
        )
    ladder.curves = _kept(ladder, tasks, metrics)
    return ladder


def _of_runs(runs: list[Path], places: Sequence[str], kind: Kind) -> Ladder:
    ladder, sized = Ladder(TITLES[kind]), []
    for run in dict.fromkeys(runs):
        status = str(Left(run).result.get("status", "ok"))  # others' runs have none
        if status != "ok":
            ladder.problems.append(f"{run}: {status}; left out")
            continue
        try:
            x = size_of(run, kind)
        except ValueError as error:
            ladder.problems.append(f"{error}; left out")
            continue
        items = read_items(run)
        ladder.problems += items.problems
        ladder.sources += files_of(run)
        sized.append((x, run.name if run.name not in {r.name for r in runs if r != run} else str(run), items))
    if not sized:
        more = f" ({ladder.problems[0]})" if ladder.problems else ""
        raise ValueError(f"no run with items.jsonl in {', '.join(map(str, places))}{more}")
    sized.sort(key=lambda row: row[0])
    ladder.models = [(name, x) for x, name, _ in sized]
    for task in dict.fromkeys(task for _, _, items in sized for task in items.tasks):
        ladder.curves += _curves(task, sized, ladder.problems)
    return ladder


def _curves(task: str, sized: Sequence[tuple[float, str, Items]], problems: list[str]) -> list[Curve]:
    there = [(x, name, items.tasks[task]) for x, name, items in sized if task in items.tasks]
    problems += [
        f"{name} has no items of {task}; left out of its curves" for _, name, i in sized if task not in i.tasks
    ]
    shared = sorted(set.intersection(*(set(items) for _, _, items in there)))
    every = set.union(*(set(items) for _, _, items in there))
    if len(shared) < len(every):
        problems.append(f"{task}: {len(shared)} of {len(every)} items are in all models; the others are left out")
    if not shared:
        return []
    samples = [each for row in there[0][2].values() for each in row]
    parts = dict.fromkeys(p for each in samples if isinstance(each.get("parts"), dict) for p in each["parts"])
    options = any(each.get("rank") is not None or each.get("option_logprobs") for each in samples)
    wanted = [metric for name, metric in METRICS.items() if not (options and name in _TEXT)]
    curves = [_curve(task, metric, there, shared, problems) for metric in (*wanted, *map(part, parts))]
    return _without_twins([curve for curve in curves if curve is not None])


def _curve(
    task: str, metric: Metric, there: Sequence[tuple[float, str, dict]], shared: list[str], problems: list[str]
) -> Curve | None:
    """One metric, of the items for which all models have it; runs of equal size are averaged."""
    rows = []
    for x, name, items in there:
        values = np.array([_mean(metric, items[each]) for each in shared])
        if not np.isnan(values).all():
            rows.append((x, name, values))
    if not rows:
        return None
    lacking = [name for _, name, _ in there if name not in {row[1] for row in rows}]
    problems += [f"{task}: {name} has nothing for {metric.name}; left out of its curve" for name in lacking]
    whole = ~np.isnan(np.array([values for _, _, values in rows])).any(0)
    if not whole.all():
        left = f"{int((~whole).sum())} of {len(whole)} items lack what {metric.name} is read from; left out of it"
        problems.append(f"{task}: {left}")
    if whole.sum() < ITEMS:
        problems.append(f"{task}: {metric.name} rests on {int(whole.sum())} items; {ITEMS} are the least; left out")
        return None
    sizes = list(dict.fromkeys(x for x, _, _ in rows))
    same = [[row for row in rows if row[0] == x] for x in sizes]
    matrix = np.array([np.mean([values[whole] for _, _, values in group], 0) for group in same])
    middle = np.median(matrix, 1) if metric.centre == "median" else matrix.mean(1)
    names = tuple(", ".join(name for _, name, _ in group) for group in same)
    kept = [each for each, is_whole in zip(shared, whole, strict=True) if is_whole]
    counts = np.full(len(sizes), int(whole.sum()))
    chance = _chance(metric, [there[0][2][each][0] for each in kept])
    return Curve(
        task, metric, np.array(sizes, dtype=float), middle, counts, names, matrix, chance=chance, ids=tuple(kept)
    )


def _mean(metric: Metric, answers: list[Item]) -> float:
    values = [value for each in answers if (value := metric.of(each)) is not None]
    return float(np.mean(values)) if values else float("nan")


def _chance(metric: Metric, items: list[Item]) -> float:
    """What guessing gets."""
    if metric.name in ("multiple_choice", "option_probability"):
        return float(np.mean([1 / len(each["option_logprobs"]) for each in items]))
    if metric.name == "rank_1" and all(_count(each) for each in items):
        return float(np.mean([1 / _count(each) for each in items]))
    return 0.0


def _count(item: dict[str, Any]) -> int:
    value = item.get("candidates")
    return value if isinstance(value, int) and value > 0 else 0


def _without_twins(curves: list[Curve]) -> list[Curve]:
    """Without metrics that say of every item what a later one says: exact match of a rank is recall at 1."""
    return [
        curve
        for place, curve in enumerate(curves)
        if not any(
            curve.metric.name == "exact_match" and c.metric.hits and np.array_equal(c.items, curve.items)
            for c in curves[place + 1 :]
            if not c.metric.name.startswith("part:")
        )
    ]


def _kept(ladder: Ladder, tasks: Sequence[str], metrics: Sequence[str]) -> list[Curve]:
    known = {"task": set(ladder.tasks), "metric": {curve.metric.name for curve in ladder.curves}}
    for what, names in (("task", tasks), ("metric", metrics)):
        for name in names:
            if name not in known[what]:
                raise ValueError(f"there is no {what} {name}; there are: {', '.join(sorted(known[what])) or 'none'}")
    kept = [c for c in ladder.curves if (not tasks or c.task in tasks) and (not metrics or c.metric.name in metrics)]
    if not kept:
        more = f" ({ladder.problems[0]})" if ladder.problems else ""
        raise ValueError(f"no metric can be read from these items{more}")
    return kept
