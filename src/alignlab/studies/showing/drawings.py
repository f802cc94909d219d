"""Which figures a study's report has, and what each shows."""

import itertools
from typing import Any

from markupsafe import Markup

from alignlab.reports.page import Figure
from alignlab.studies.advice import best_places
from alignlab.studies.design.parameters import Parameter
from alignlab.studies.outcome import kind
from alignlab.studies.reading.study_data import StudyData, place
from alignlab.studies.reading.tables import Curve
from alignlab.studies.showing.figures import BAR, OTHER, Axes, robust, short
from alignlab.studies.statistics import best_interval, best_of
from alignlab.studies.trials import Trial

BEST = 3  # curves drawn in colour
POINTS = 200  # of a curve
_CONTRASTIVE = ("clip", "siglip", "albef", "coca")


def axis(data: StudyData, each: Parameter) -> Figure:
    """The value of every trial against one parameter; crosses along the top have none."""
    good = [trial for trial in data.feasible if each.key in trial.point]
    bad = [trial for trial in data.infeasible if each.key in trial.point]
    extent = robust([trial.value for trial in good], data.metric.mode) if good else (0.0, 1.0)
    if each.is_range:
        axes = Axes((each.low, each.high), extent, each.scale == "log", x_title=each.key)
        usable = [trial for trial in (*good, *bad) if place(each, trial) == place(each, trial)]
        x_of = {trial.trial: float(trial.point[each.key]) for trial in usable}
    else:
        axes = Axes((-0.5, len(each.values) - 0.5), extent, x_names=list(map(str, each.values)), x_title=each.key)
        names = list(map(repr, each.values))
        x_of = {}
        for trial in (*good, *bad):  # side by side, in the order of the trials
            if repr(trial.point[each.key]) in names:
                x_of[trial.trial] = names.index(repr(trial.point[each.key])) + (trial.trial * 0.618 % 1 - 0.5) * 0.5
    shown = [trial for trial in good if trial.trial in x_of]
    points = [(x_of[trial.trial], trial.value) for trial in shown]
    axes.dots(points[1:], titles=[_said(trial, data) for trial in shown[1:]])
    axes.dots(points[:1], OTHER, [_said(trial, data) for trial in shown[:1]])
    lost = [trial for trial in bad if trial.trial in x_of]
    axes.crosses([x_of[trial.trial] for trial in lost], [_said(trial, data) for trial in lost])
    caption = (
        f"{data.metric.name} against {each.key} ({each.role}): {len(shown)} trials, the best one in another colour"
    )
    return Figure(axes.picture(), f"{caption}; {len(lost)} crosses have no value." if lost else f"{caption}.")


def isolation(data: StudyData, each: Parameter) -> Figure | None:
    """The best trial over all else, for every value or quarter of a parameter, with the interval of such a best."""
    rows = [(name, [t.value for t in data.feasible if inside(t)]) for name, inside in _buckets(each)]
    there = [(name, values) for name, values in rows if values]
    if len(there) < 2:
        return None
    told = [best_within(data, values) for _, values in there]
    flat = [value for row in told for value in row]
    pad = 0.05 * (max(flat) - min(flat)) or 0.1
    names = [name for name, _ in there]
    axes = Axes((-0.5, len(there) - 0.5), (min(flat) - pad, max(flat) + pad), x_names=names, x_title=each.key)
    for column, (low, best, high) in enumerate(told):
        axes.box(column, low, best, high)
    counts = ", ".join(
        f"{name}: {len(values)}{' (too few to lean on)' if len(values) < 3 else ''}" for name, values in there
    )
    return Figure(
        axes.picture(),
        f"The best {data.metric.name} that each {each.key} reached over everything else, and where the best of as many "
        f"trials would lie in nine of ten repetitions. Trials with a value: {counts}.",
    )


def best_within(data: StudyData, values: list[float]) -> tuple[float, float, float]:
    """The best of some trials' values, which come best first, between the ends of where such a best lies."""
    ends = best_interval([data.metric.loss(value) for value in values])
    low, high = sorted(data.metric.loss(end) for end in ends)
    return low, values[0], high


def best_of_n(data: StudyData) -> Figure | None:
    """How good the best of n trials would have been: whether more of them would help."""
    values = [data.loss(trial) for trial in data.feasible]
    if len(values) < 4:
        return None
    counts = sorted({max(1, round(len(values) * step / 24)) for step in range(1, 25)})
    told = [tuple(data.metric.loss(value) for value in row) for row in best_of(values, counts)]
    flat = [value for row in told for value in row]
    axes = Axes((1, counts[-1]), robust(flat, data.metric.mode), x_title="trials")
    for column, dash in ((0, "4 4"), (1, ""), (2, "4 4")):
        axes.line([(n, row[column]) for n, row in zip(counts, told, strict=True)], dash=dash)
    return Figure(axes.picture(), "The best of n of these trials, drawn again and again: middle, and 5 to 95 of 100.")


def training(data: StudyData) -> Figure | None:
    """Curves of the best trials and of the median one."""
    there = [trial for trial in data.feasible if len(data.curves.get(trial.trial, ())) > 1]
    if not there:
        return None
    middle = there[len(there) // 2]
    best = there[:BEST]
    drawn = [(data.curves[middle.trial], "var(--soft)", middle), *((data.curves[t.trial], BAR, t) for t in best[1:])]
    drawn.append((data.curves[best[0].trial], OTHER, best[0]))
    values = [value for curve, _, _ in drawn for _, value in curve if abs(value) != float("inf") and value == value]
    if not values:
        return None
    ends = [curve[-1][0] for curve, _, _ in drawn]
    axes = Axes((0, max(ends)), robust(values, data.metric.mode), x_title="step")
    for curve, colour, _ in drawn:
        axes.line(_thinned(curve), colour)
    numbers = ", ".join(str(trial.trial) for trial in best)
    return Figure(
        axes.picture(), f"{data.metric.name} of the best trials ({numbers}) and of a middling one, {middle.trial}."
    )


def best_steps(data: StudyData) -> Figure | None:
    """When trials were best."""
    places = best_places(data)
    if len(places) < 4:
        return None
    counts = [0] * 10
    for each in places:
        counts[min(int(each * 10), 9)] += 1
    axes = Axes((0, 100), (0, max(counts)), x_title="% of its steps")
    axes.bars(counts)
    return Figure(axes.picture(), "When each trial was at its best.")


def reward_against_kl(data: StudyData) -> Figure | None:
    """For reinforcement learning: what the reward cost in distance from the start."""
    for score, kl in (("val/judge", "val/kl"), ("val/score", "val/kl"), ("objective/score", "objective/kl")):
        points = [(t.metrics[kl], t.metrics[score]) for t in data.feasible if {score, kl} <= set(t.metrics)]
        if len(points) >= 3:
            xs, ys = zip(*points, strict=True)
            axes = Axes((min(0.0, *xs), max(xs)), (min(ys), max(ys)), x_title=f"{kl} (nats)")
            titles = [_said(t, data) for t in data.feasible if {score, kl} <= set(t.metrics)]
            axes.dots(points, titles=titles)
            text = (
                f"{score} against {kl} at the end of each trial. The highest reward alone is often reward hacking: of "
            )
            return Figure(axes.picture(), f"{text}equal scores the one with less divergence is the better policy.")
    return None


def contrastive_note(data: StudyData) -> str | None:
    """A caveat where batches of different sizes were compared under a contrastive loss."""
    model = str(data.fixed.get("model", "")) + str([p.values for p in data.parameters if p.key == "model"])
    sizes = [p.key for p in data.parameters if p.key.endswith("batch_size")]
    if not sizes or not any(name in model.lower() for name in _CONTRASTIVE):
        return None
    return (
        f"{sizes[0]} varies, and the contrastive loss counts over the batch: more negatives make its value larger "
        "(ln B where nothing is learned) and another task of it. Compare recalls on a fixed set, never this loss."
    )


def _buckets(each: Parameter) -> list[tuple[str, Any]]:
    if each.values:
        return [(str(v), lambda t, v=v: t.point.get(each.key) == v) for v in each.values]
    edges = [each.at(0.0), each.value(0.25), each.value(0.5), each.value(0.75), each.high]
    return [
        (
            f"{short(low)}–{short(high)}",
            lambda t, low=low, high=high: (
                low <= t.point.get(each.key, low - 1) < high or t.point.get(each.key) == high == each.high
            ),
        )
        for low, high in itertools.pairwise(edges)
    ]


def _said(trial: Trial, data: StudyData) -> Markup | str:
    values = ", ".join(f"{key}={short(v) if isinstance(v, float) else v}" for key, v in trial.point.items())
    end = f"{data.metric.name} {trial.value:.4g}" if trial.status == "ok" and trial.value is not None else kind(trial)
    return f"trial {trial.trial}: {end}; {values}"


def _thinned(curve: Curve) -> Curve:
    return curve[:: -(-len(curve) // POINTS)]
