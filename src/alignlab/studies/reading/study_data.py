"""Trials as a report reads them, whoever ran them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.studies.design.declaration import Metric, Study
from alignlab.studies.design.parameters import Parameter
from alignlab.studies.grokking import Grokking
from alignlab.studies.reading.tables import Curve
from alignlab.studies.trials import Trial


@dataclass
class StudyData:
    """A study's trials with what they have logged.

    Attributes:
        parameters: what varies.
        trials: those that have ended, in order.
        curves: number of a trial -> its curve of the metric.
        train: the same of the training loss.
        grokking: number of a trial -> what training and held-out metric say of each other.
        fixed: key -> value of what all trials share.
        study: as declared; None for a sweep of others.
        program: what has run the trials.
    """

    directory: Path
    metric: Metric
    parameters: list[Parameter]
    trials: list[Trial]
    curves: dict[int, Curve] = field(default_factory=dict)
    train: dict[int, Curve] = field(default_factory=dict)
    grokking: dict[int, Grokking] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    study: Study | None = None
    goal: str = ""
    program: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def feasible(self) -> list[Trial]:
        """Trials with a value, best first."""
        there = [trial for trial in self.trials if trial.status == "ok" and trial.value is not None]
        return sorted(there, key=self.loss)

    @property
    def infeasible(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.status != "ok" or trial.value is None]

    @property
    def ranges(self) -> list[Parameter]:
        """What has an order; a seed has none."""
        return [each for each in self.parameters if each.is_range and not each.is_seed]

    @property
    def choices(self) -> list[Parameter]:
        return [each for each in self.parameters if each.values]

    def loss(self, trial: Trial) -> float:
        """The value such that smaller is better."""
        return self.metric.loss(trial.value) if trial.status == "ok" and trial.value is not None else float("inf")

    def places(self, trials: list[Trial]) -> np.ndarray:
        """(trials, ranges): where each value lies in its range; nan where a trial hasn't the parameter."""
        rows = [[place(each, trial) for each in self.ranges] for trial in trials]
        return np.array(rows, dtype=float).reshape(len(trials), len(self.ranges))

    def groups(self, trials: list[Trial], but: Parameter | None = None) -> np.ndarray:
        """(trials, values but each parameter's first): one where a trial has the value."""
        columns = [
            [float(trial.point.get(each.key) == value) for trial in trials]
            for each in self.choices
            if each is not but
            for value in each.values[1:]
        ]
        return np.array(columns, dtype=float).reshape(-1, len(trials)).T

    def pairs(self, each: Parameter, a: Any, b: Any) -> Iterator[tuple[Trial, Trial]]:
        """Trials that differ in one parameter alone, where the study has such."""
        there = {}
        for trial in self.trials:
            rest = tuple(sorted((key, repr(value)) for key, value in trial.point.items() if key != each.key))
            there.setdefault(rest, {})[repr(trial.point.get(each.key))] = trial
        for values in there.values():
            if repr(a) in values and repr(b) in values:
                yield values[repr(a)], values[repr(b)]


def place(each: Parameter, trial: Trial) -> float:
    """Where a trial's value lies in a range; nan where it has none."""
    value = trial.point.get(each.key)
    exists = isinstance(value, int | float) and each.holds(trial.point)
    return each.place(value) if exists and (each.scale == "linear" or value > 0) else float("nan")
