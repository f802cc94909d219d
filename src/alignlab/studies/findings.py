"""What a study says about its space: bounds that are too narrow, values that don't train, settings that are better."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import comb
from typing import Any

import numpy as np

from alignlab.studies.design.parameters import Parameter
from alignlab.studies.outcome import kind
from alignlab.studies.reading.study_data import StudyData, place
from alignlab.studies.statistics import LEVEL, PAIRS, Comparison, apart, fails_more, fitted, in_pairs, quadratic

RESAMPLES = 60
AGREE = 0.8  # share of the resamples whose optimum lies at the bound
EDGE = 0.05  # of a range
NEEDED = 8  # trials with a value, below which a study says nothing
CERTAIN = 0.01  # chance that failures without a pattern look like a region


@dataclass(frozen=True)
class Finding:
    """Something that a study says.

    Attributes:
        code: for programs.
        text: for people.
        parameter: that it is about.
        details: numbers and values.
    """

    code: str
    text: str
    parameter: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def findings(data: StudyData) -> list[Finding]:
    """All that the trials of a study say about where and what to search, the most useful first."""
    regions = list(infeasible_regions(data))
    told = [*comparisons(data), *boundaries(data, regions), *regions, *_failures(data)]
    if len(data.feasible) < NEEDED:
        few = f"{len(data.feasible)} trials with a value are too few for bounds; {NEEDED} are needed"
        told.append(Finding("too_few_trials", few, details={"feasible": len(data.feasible)}))
    return told


def boundaries(data: StudyData, regions: list[Finding]) -> Iterator[Finding]:
    """Ranges whose best values lie at an end.

    A bowl for each parameter is fitted to resamples of the trials; a bound is named where four of five have their
    optimum within a twentieth of it, and the better fifth of the trials lies on that side too.
    """
    trials = data.feasible
    if len(trials) < NEEDED or not data.ranges:
        return
    places, losses = data.places(trials), np.array([data.loss(trial) for trial in trials])
    votes = _votes(quadratic(places, data.groups(trials)), losses, len(data.ranges))
    best = places[: max(4, round(len(trials) / 5))]
    for column, each in enumerate(data.ranges):
        middle = float(np.nanmedian(best[:, column])) if np.isfinite(best[:, column]).any() else 0.5
        low, high = votes[column]
        side = "low" if low >= AGREE and middle < 0.35 else "high" if high >= AGREE and middle > 0.65 else None
        if side is None:
            continue
        blocked = next((r for r in regions if r.parameter == each.key and r.details["side"] == side), None)
        if blocked is not None:
            continue  # `unstable_beyond` says what to do
        new = _wider(each, side)
        yield Finding(
            "boundary",
            f"The best values of {each.key} lie at the {side} end, {each.low if side == 'low' else each.high:g}: "
            f"search {new[0]:g} to {new[1]:g} next.",
            each.key,
            {"side": side, "agreement": round(max(low, high), 3), "low": new[0], "high": new[1]},
        )


def _votes(columns: np.ndarray, losses: np.ndarray, count: int) -> list[tuple[float, float]]:
    """For each range, the shares of resamples whose optimum lies at the low end and at the high end."""
    random, steps = np.random.default_rng(0), np.linspace(-0.5, 0.5, 41)
    at_low, at_high = np.zeros(count), np.zeros(count)
    for _ in range(RESAMPLES):
        drawn = random.integers(0, len(losses), len(losses))
        weights = fitted(columns[drawn], losses[drawn])
        for column in range(count):
            curve = weights[1 + column] * steps + weights[1 + count + column] * steps**2
            optimum = steps[curve.argmin()] + 0.5
            at_low[column] += optimum <= EDGE
            at_high[column] += optimum >= 1 - EDGE
    return list(zip((at_low / RESAMPLES).tolist(), (at_high / RESAMPLES).tolist(), strict=True))


def _wider(each: Parameter, side: str) -> tuple[float, float]:
    """Half of the old range and as much beyond its end; a linear one that isn't negative stays so."""
    low, high = (each.value(-0.5), each.value(0.5)) if side == "low" else (each.value(0.5), each.value(1.5))
    if each.scale == "linear" and each.low >= 0:
        low = max(low, 0.0)
    return low, high


def infeasible_regions(data: StudyData) -> Iterator[Finding]:
    """Ends of ranges beyond which trials don't train, where that is no accident (Fisher's exact test)."""
    bad = {trial.trial for trial in data.infeasible}
    if len(bad) < 3 or len(bad) == len(data.trials):
        return
    for each in data.ranges:
        there = sorted((place(each, trial), trial.trial in bad) for trial in data.trials)
        there = [(where, failed) for where, failed in there if np.isfinite(where)]
        for side in ("low", "high"):
            ordered = there if side == "low" else [(where, failed) for where, failed in reversed(there)]
            found = _region(ordered, 2 * len(data.ranges))
            if found is None:
                continue
            limit = each.value(found[0])
            held = sum(failed for _, failed in ordered[: found[1]])
            reach = _near(data, each, found[0])
            text = (
                f"{held} of {found[1]} trials with {each.key} {'below' if side == 'low' else 'above'} {limit:g} fail."
            )
            if reach:
                text += " The best trials lie right beside it: training is unstable there, and a longer warm-up or"
                text += " clipping may allow more (alignlab probe stability)."
            code = "unstable_beyond" if reach else "infeasible_region"
            yield Finding(code, text, each.key, {"side": side, "limit": limit, "failed": held, "trials": found[1]})


def _region(ordered: list[tuple[float, bool]], looks: int) -> tuple[float, int] | None:
    """The end of a region that begins with the first: its place, and how many trials lie in it."""
    n, bad = len(ordered), sum(failed for _, failed in ordered)
    best, place_of, count = 1.0, 0.0, 0
    for size in range(3, n):
        held = sum(failed for _, failed in ordered[:size])
        if held < 0.8 * size or not ordered[size - 1][1] or ordered[size][1]:
            continue
        tail = sum(comb(bad, k) * comb(n - bad, size - k) for k in range(held, min(size, bad) + 1)) / comb(n, size)
        if tail < best:
            best, place_of, count = tail, (ordered[size - 1][0] + ordered[size][0]) / 2, size
    return (place_of, count) if best * looks * 5 < CERTAIN else None  # five: places for a limit, roughly


def _near(data: StudyData, each: Parameter, limit: float) -> bool:
    """Whether the better fifth of the trials lies within a sixth of the range beside a limit."""
    trials = data.feasible
    if len(trials) < NEEDED:
        return False
    best = [place(each, trial) for trial in trials[: max(4, round(len(trials) / 5))]]
    return abs(float(np.nanmedian(best)) - limit) < 1 / 6


def comparisons(data: StudyData) -> Iterator[Finding]:
    """For every parameter with a list of values, whether its best one is better than each of the others."""
    for each in sorted(data.choices, key=lambda p: p.role != "scientific"):
        there = [value for value in each.values if any(t.point.get(each.key) == value for t in data.trials)]
        if len(there) < 2 or len(there) > 12 or each.when:
            continue
        others = [value for value in there if value != (best := _best_value(data, each, there))]
        compared = {str(value): compare(data, each, best, value) for value in others}
        level = len(others)  # each may be an accident
        beaten = [v for v, c in compared.items() if c.p * level <= LEVEL and c.verdict == "a"]
        details = {"best": best, "beaten": beaten, "against": {v: _told(data, c) for v, c in compared.items()}}
        if len(beaten) == len(others):
            gap = max(compared.values(), key=lambda c: c.difference)
            size = f"by {abs(gap.difference):.3g} (95 %: {abs(gap.high):.3g} to {abs(gap.low):.3g})"
            rest = " and ".join(map(str, others)) if len(others) < 4 else "all others"
            text = f"{each.key}={best} is better than {rest}, {size} in {data.metric.name}."
            yield Finding("better", text, each.key, details)
        else:
            equal = ", ".join(map(str, [best, *(v for v in others if str(v) not in beaten)]))
            text = f"{each.key}: {equal} are not distinguishable with {len(data.trials)} trials" + (
                f"; {', '.join(beaten)} is worse than {best}." if beaten else "."
            )
            yield Finding("not_distinguishable", text, each.key, details)
        yield from _failing(data, each, best, others)


def _told(data: StudyData, compared: Comparison) -> dict[str, Any]:
    """A comparison in the metric's own sign: positive where the best value's is larger."""
    low, high = sorted(data.metric.loss(end) for end in (compared.low, compared.high))
    return {**vars(compared), "difference": data.metric.loss(compared.difference), "low": low, "high": high}


def _failing(data: StudyData, each: Parameter, best: Any, others: list[Any]) -> Iterator[Finding]:
    """Values that keep trials from training which train with another."""
    for value in others:
        pairs = [(data.loss(x), data.loss(y)) for x, y in data.pairs(each, best, value)]
        if pairs and fails_more(*zip(*pairs, strict=True)) * len(others) <= LEVEL:
            counts = [sum(np.isinf(pair[place]) for pair in pairs) for place in (0, 1)]
            worse, other = (best, value) if counts[0] > counts[1] else (value, best)
            much = f"{max(counts)} against {min(counts)} of {len(pairs)}"
            text = f"{each.key}={worse} fails at more points than {other} ({much})."
            yield Finding("fails_more", text, each.key, {"value": worse, "failed": max(counts), "pairs": len(pairs)})


def compare(data: StudyData, each: Parameter, a: Any, b: Any) -> Comparison:
    """Value `a` of a parameter against `b`: in pairs where the study has six of them, else by what is left of the
    values when the other parameters' bowls are taken away.
    """
    pairs = list(data.pairs(each, a, b))
    if len(pairs) >= PAIRS:
        first, second = zip(*[(data.loss(x), data.loss(y)) for x, y in pairs], strict=True)
        return in_pairs(first, second)
    trials = data.feasible
    losses = np.array([data.loss(trial) for trial in trials])
    if len(trials) >= NEEDED:
        columns = quadratic(data.places(trials), data.groups(trials, but=each))
        if len(trials) > columns.shape[1]:
            losses = losses - columns @ fitted(columns, losses)
    values = [trial.point.get(each.key) for trial in trials]
    groups = [losses[[v == value for v in values]] for value in (a, b)]
    if not all(map(len, groups)):
        return Comparison(0.0, -np.inf, np.inf, 1.0, 0)
    return apart(*groups)


def _best_value(data: StudyData, each: Parameter, values: list[Any]) -> Any:
    """The value whose three best trials are best."""

    def best(value: Any) -> float:
        losses = sorted(data.loss(trial) for trial in data.trials if trial.point.get(each.key) == value)
        return float(np.mean(losses[:3]))

    return min(values, key=best)


def _failures(data: StudyData) -> Iterator[Finding]:
    bad = data.infeasible
    if not data.trials or not bad:
        return
    kinds = [kind(trial) for trial in bad]
    counts = ", ".join(f"{kinds.count(name)} {name}" for name in dict.fromkeys(kinds))
    share = len(bad) / len(data.trials)
    if share > 0.3:
        text = f"{share:.0%} of the trials have no value ({counts}): the space reaches too far, or there is a bug."
        yield Finding("many_infeasible", text, details={"share": round(share, 3)})
