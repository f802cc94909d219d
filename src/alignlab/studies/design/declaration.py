"""A study as its file declares it; what can't be a study is refused in one line, before any training."""

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from alignlab.studies.design.parameters import Parameter, flat, parameter, word

Sampler = Literal["halton", "sobol", "random", "grid", "tpe"]
SAMPLERS = ("halton", "sobol", "random", "grid", "tpe")
# What a better validation score must not be bought with: more steps always win, and a batch size is a matter of speed.
NOT_SEARCHED = {
    "max_steps": "more steps nearly always win",
    "max_epochs": "more epochs nearly always win",
    "batch_size": "a batch size is chosen by speed (alignlab probe batch), and everything else is tuned again with it",
}


@dataclass(frozen=True)
class Metric:
    """What is compared: the best value that a run has had, its last, or that at a step."""

    name: str
    mode: Literal["min", "max"]
    reduce: Literal["best", "last", "at_step"] = "best"
    step: int | None = None

    def better(self, a: float, b: float) -> bool:
        return a < b if self.mode == "min" else a > b

    def loss(self, value: float) -> float:
        """The value such that smaller is better."""
        return value if self.mode == "min" else -value


@dataclass(frozen=True)
class Study:
    """What a study's file declares.

    Attributes:
        parameters: what varies, those with a condition last.
        fixed: key -> value, the same in every trial.
        infeasible: metric -> {"above" or "below": limit}; beyond it a trial that ended well counts as infeasible.
        words: of the command line, for every trial.
    """

    goal: str
    metric: Metric
    parameters: tuple[Parameter, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    sampler: Sampler = "halton"
    seed: int = 0
    trials: int = 16
    infeasible: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    words: tuple[str, ...] = ()

    @property
    def settings(self) -> list[dict[str, Any]]:
        """The combinations of the scientific parameters' values; one that is empty where there are none."""
        chosen = [p for p in self.parameters if p.role == "scientific" and p.values and not p.when]
        return [
            dict(zip([p.key for p in chosen], values, strict=True))
            for values in itertools.product(*[p.values for p in chosen])
        ]

    @property
    def searched(self) -> list[Parameter]:
        """What a sampler places: all but the scientific values that trials take in turn."""
        return [p for p in self.parameters if p.role == "nuisance" or p.is_range or p.when]

    def overrides(self, point: Mapping[str, Any]) -> list[str]:
        """The command line of a trial."""
        return [*(word(*item) for item in self.fixed.items()), *self.words, *(word(*item) for item in point.items())]

    def identity(self) -> dict[str, Any]:
        """What makes two studies' trials the same: all but the goal, the metric and how many there are."""
        left_out = ("goal", "metric", "trials", "infeasible", "parameters")
        whole = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in left_out}
        whole |= {"words": list(self.words), "fixed": dict(self.fixed)}
        return whole | {"parameters": [_plain(each) for each in self.parameters]}


def declared(given: Mapping[str, Any], words: Sequence[str] = ()) -> Study:
    """The study that a file declares.

    Args:
        given: the file's keys.
        words: what the command line says besides, for every trial.
    Raises:
        ValueError: what is wrong with it, in one line.
    """
    known = ("goal", "metric", "scientific", "nuisance", "conditional", "fixed")
    known = (*known, "sampler", "seed", "trials", "infeasible", "allow")
    for key in given:
        if key not in known:
            raise ValueError(f"study: unknown key {key}{_nearest(str(key), known)} ({', '.join(known)})")
    if not str(given.get("goal") or "").strip():
        raise ValueError("study: goal is missing; say in a sentence what is to be found out")
    parameters = tuple(_parameters(given))
    if not parameters:
        raise ValueError("study: neither scientific nor nuisance parameters; then there is nothing to try")
    fixed = flat(given.get("fixed") or {})
    _refuse_overlaps(parameters, fixed, words)
    _refuse_unfair(parameters, given.get("allow") or ())
    sampler, trials, seed = given.get("sampler") or "halton", given.get("trials", 16), given.get("seed", 0)
    if sampler not in SAMPLERS:
        raise ValueError(f"study: sampler={sampler} is none of {', '.join(SAMPLERS)}")
    for name, value, least in (("trials", trials, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"study: {name}={value!r} must be a whole number of at least {least}")
    if sampler == "grid" and (without := [p.key for p in parameters if p.is_range and not p.points]):
        raise ValueError(f"study: a grid needs points: (how many) of the range {without[0]}")
    limits = {str(name): dict(limit or {}) for name, limit in (given.get("infeasible") or {}).items()}
    for name, limit in limits.items():
        if not limit or set(limit) - {"above", "below"}:
            raise ValueError(f"study: infeasible.{name} has above: or below: a number, not {limit}")
    goal = " ".join(str(given["goal"]).split())
    return Study(goal, _metric(given.get("metric")), parameters, fixed, sampler, seed, trials, limits, tuple(words))


def _metric(given: Any) -> Metric:
    if not isinstance(given, Mapping) or not given.get("name"):
        raise ValueError("study: metric is missing; give its name and its mode, min or max")
    if unknown := set(given) - {"name", "mode", "reduce", "step"}:
        raise ValueError(f"study: metric has no {', '.join(sorted(unknown))} (name, mode, reduce, step)")
    if given.get("mode") not in ("min", "max"):
        raise ValueError(f"study: metric.mode is {given.get('mode')!r}; say whether {given['name']} is best min or max")
    reduce, step = given.get("reduce", "best"), given.get("step")
    if reduce not in ("best", "last", "at_step") or (reduce == "at_step") != isinstance(step, int):
        raise ValueError(f"study: metric.reduce={reduce} is best, last, or at_step with step: a number")
    return Metric(str(given["name"]), given["mode"], reduce, step)


def _parameters(given: Mapping[str, Any]) -> Iterator[Parameter]:
    for role in ("scientific", "nuisance"):
        for key, about in flat(given.get(role) or {}).items():
            yield parameter(key, about, role)
    for place, block in enumerate(given.get("conditional") or ()):
        if not isinstance(block, Mapping) or not block.get("when") or set(block) - {"when", "nuisance", "scientific"}:
            raise ValueError(f"study: conditional[{place}] has when: and nuisance:, not {dict(block)}")
        when = flat(block["when"])
        for role in ("scientific", "nuisance"):
            for key, about in flat(block.get(role) or {}).items():
                yield parameter(key, about, role, when)


def _refuse_overlaps(parameters: Sequence[Parameter], fixed: Mapping[str, Any], words: Sequence[str]) -> None:
    typed = {each.partition("=")[0].lstrip("+~") for each in words}
    always = [each for each in parameters if not each.when]
    values = {each.key: each.values for each in always if each.values} | {key: (v,) for key, v in fixed.items()}
    for place, each in enumerate(parameters):
        rivals = [other for other in parameters[:place] if other.key == each.key]
        if any(not other.when or not each.when or other.when == each.when for other in rivals):
            raise ValueError(f"study: {each.key} stands there twice; it is scientific, nuisance or under one condition")
        if each.key in fixed:
            raise ValueError(f"study: {each.key} is searched and fixed; it can be one of them")
        if each.key in typed:
            raise ValueError(f"study: {each.key} is searched; leave it out of the command line, or of the study")
        for key, value in each.when.items():
            if key not in values or value not in values[key]:
                there = ", ".join(map(str, values.get(key, ()))) or "no values"
                raise ValueError(f"study: {each.key} exists when {key}={value}, but {key} has {there} in this study")


def _refuse_unfair(parameters: Sequence[Parameter], allow: Sequence[str]) -> None:
    for each in parameters:
        why = NOT_SEARCHED.get(each.key.rpartition(".")[2])
        if why is not None and each.key not in allow:
            raise ValueError(f"study: {each.key} is searched, but {why}; allow: [{each.key}] if that is the question")


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _plain(each: Parameter) -> dict[str, Any]:
    whole = {entry.name: getattr(each, entry.name) for entry in fields(each)}
    whole |= {"values": list(each.values), "when": dict(each.when)}
    return {key: None if isinstance(value, float) and value != value else value for key, value in whole.items()}
