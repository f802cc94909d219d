"""The page that compares runs: what differs first, curves over each other, numbers with their spread over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from alignlab.reports.curves import curves, panel
from alignlab.reports.lines import lines
from alignlab.reports.page import Block, Grid, Note, Page, Pictures, Section
from alignlab.reports.runs.reading import RunRecord

# Keys that tell runs apart without being a choice.
APART = ("seed", "run_name", "resume", "objective", "plugins", "layout", "data.seed", "model.seed")
MOST_METRICS = 40
SHOWN = ("loss", "recall_at_1", "accuracy", "score", "kl", "perplexity")


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed."""

    label: str
    settings: dict[str, Any]  # those that differ between groups
    runs: list[RunRecord]

    def numbers(self, metric: str) -> list[float]:
        """A metric's last values, a run each."""
        found = (run.result.metrics.get(metric) for run in self.runs if run.result is not None)
        return [value for value in found if value is not None and math.isfinite(value)]


def differing(runs: Sequence[RunRecord]) -> list[str]:
    """Dotted keys whose values aren't the same in all runs, the seed and names apart."""
    settings = [run.settings for run in runs]
    keys = dict.fromkeys(key for each in settings for key in each)
    return [key for key in keys if key not in APART and len({repr(each.get(key)) for each in settings}) > 1]


def groups(runs: Sequence[RunRecord]) -> list[Group]:
    """Runs with equal settings together, in the order of the runs."""
    keys, found = differing(runs), {}
    for run in runs:
        values = {key: run.settings.get(key) for key in keys}
        found.setdefault(repr(values), (values, []))[1].append(run)
    names = [key.rpartition(".")[2] for key in keys]
    short = [key if names.count(name) > 1 else name for key, name in zip(keys, names, strict=True)]
    return [
        Group(_label(dict(zip(short, values.values(), strict=True)), number), values, members)
        for number, (values, members) in enumerate(found.values())
    ]


def metrics_of(found: Sequence[Group]) -> list[str]:
    """Metrics that are worth a column: held-out ones first, then scores and losses of training."""
    names = {name for group in found for run in group.runs if run.result for name in run.result.metrics}
    return sorted(names, key=lambda name: (not name.startswith("val/"), not _is_shown(name), name))[:MOST_METRICS]


def said(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return "-"
    return f"{mean(values):.4g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")


def table(found: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """A row a group: its label, its runs and how they ended, and each metric with its spread."""
    metrics = metrics_of(found)
    rows = []
    for group in found:
        ends = [run.result.status if run.result else "no result" for run in group.runs]
        ended = str(len(ends)) if set(ends) == {"ok"} else f"{len(ends)}: {', '.join(sorted(set(ends)))}"
        rows.append([group.label, ended, *(said(group.numbers(name)) for name in metrics)])
    return ["run", "seeds", *metrics], rows


def page_of(runs: Sequence[RunRecord]) -> Page:
    """The comparison as a page."""
    found, keys = groups(runs), differing(runs)
    blocks: list[Block] = [Note("Nothing but seeds and names.")]
    if keys:
        cells = [[key, *(_text(group.settings[key]) for group in found)] for key in keys]
        blocks = [Grid(["setting", *(group.label for group in found)], cells)]
    head, rows = table(found)
    several = any(len(group.runs) > 1 for group in found)
    note = "Mean ± standard deviation over seeds." if several else "One run each: no spread is known."
    sideways = [list(row) for row in zip(head, *rows, strict=True)]
    sections = [Section("What differs", blocks)]
    if pictures := _curves(found):
        sections.append(
            Section(
                "Curves", [Note("Each run is a line; runs of one colour differ in their seed."), Pictures(pictures)]
            )
        )
    sections.append(Section("Numbers at the end", [Note(note), Grid(sideways[0], sideways[1:])]))
    members = [[group.label, run.name, str(run.config.get("seed"))] for group in found for run in group.runs]
    sections.append(Section("Runs", [Grid(["run", "directory", "seed"], members)]))
    lead = f"{len(runs)} runs in {len(found)} groups of equal settings"
    return Page("Comparison of runs", lead, sections)


def _curves(found: Sequence[Group]) -> list[Any]:
    by_metric: dict[str, dict[str, tuple[int, Any]]] = {}
    for number, group in enumerate(found):
        for run in group.runs:
            seed = f", seed {run.config.get('seed')}" if len(group.runs) > 1 else ""
            for name, curve in curves(run.rows).items():
                if panel(name) != "other" and _is_shown(name):
                    by_metric.setdefault(name, {})[group.label + seed] = (number, curve)
    # A value that is known at the end alone is in the table.
    long = {name for name, drawn in by_metric.items() if any(len(curve[0]) > 1 for _, curve in drawn.values())}
    order = sorted(long or by_metric, key=lambda name: (not name.startswith("val/"), "loss" in name, name))
    pictures = []
    for name in order[:12]:
        drawn = by_metric[name]
        own = [number for number, _ in drawn.values()]
        pictures.append(lines({label: curve for label, (_, curve) in drawn.items()}, name, own))
    return [picture for picture in pictures if picture]


def _is_shown(name: str) -> bool:
    return name.endswith(SHOWN)


def _label(values: dict[str, Any], number: int) -> str:
    told = " ".join(f"{name}={_text(value)}" for name, value in values.items())
    return told if told and len(told) <= 60 else f"group {number + 1}" if told else "all"


def _text(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 80 else "…" + text[-79:]
