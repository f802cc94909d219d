"""Studies whose truth is known: bowls with noise, thresholds, categories; curves of every kind."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.studies.design.declaration import Study, declared
from alignlab.studies.design.points import point
from alignlab.studies.reading.study_data import StudyData
from alignlab.studies.trials import Trial

import numpy as np

NOISE = 0.02
RATES = {"low": 1e-4, "high": 1e-2, "scale": "log"}
UNIT = {"low": 0.0, "high": 1.0, "scale": "linear"}


@dataclass
class World:
    """A study and what is true of it.

    Attributes:
        optimum: place of the best value in each range.
        bends: how much each range matters.
        limit: place of optim.lr above which trials diverge.
        accidents: share of trials that crash wherever they are.
        offsets: value of a category -> what it adds.
    """

    seed: int
    optimum: np.ndarray
    bends: np.ndarray
    limit: float = np.inf
    accidents: float = 0.0
    offsets: dict[Any, float] = field(default_factory=dict)
    scientific: bool = True
    steep: float = 2.0  # power of the distance

    def study(self, trials: int) -> Study:
        category = {"net.kind": list(self.offsets)} if self.offsets else {}
        ranges = {"optim.lr": RATES, "optim.weight_decay": RATES, "model.dropout": UNIT}
        given = {"goal": "planted", "metric": {"name": "val/loss", "mode": "min"}, "seed": self.seed, "trials": trials}
        given |= {"scientific": category if self.scientific else {}}
        return declared(given | {"nuisance": ranges | ({} if self.scientific else category)})

    def data(self, trials: int = 32) -> StudyData:
        study, random = self.study(trials), np.random.default_rng([self.seed, 1])
        ranges = [each for each in study.parameters if each.is_range]
        done = []
        for number in range(trials):
            chosen = point(study, number)
            places = np.array([each.place(chosen[each.key]) for each in ranges])
            loss = 1 + float((self.bends * np.abs(places - self.optimum) ** self.steep).sum())
            loss += self.offsets.get(chosen.get("net.kind"), 0.0) + random.normal(0, NOISE)
            if places[0] > self.limit:
                done.append(Trial(number, chosen, "infeasible", "diverged: train/loss is nan"))
            elif random.random() < self.accidents:
                done.append(Trial(number, chosen, "failed", "crashed"))
            else:
                done.append(Trial(number, chosen, "ok", None, loss, 100, 1.0, str(number)))
        return StudyData(Path("."), study.metric, list(study.parameters), done, study=study)


def world(seed: int, **settings: Any) -> World:
    """Optima anywhere well inside, and parameters that matter more or less, some not at all."""
    random = np.random.default_rng([seed, 2])
    bends = random.uniform(0.5, 2, 3) * (random.random(3) > 0.15)
    return World(seed, random.uniform(0.2, 0.8, 3), bends, **settings)


def moved(this: World, random: np.random.Generator) -> dict[str, str]:
    """Puts some optima outside of their ranges; key -> side of those."""
    truth = {}
    for column, key in enumerate(("optim.lr", "optim.weight_decay", "model.dropout")):
        side = random.integers(0, 3)
        if side < 2:
            beyond = random.uniform(0.1, 0.6)
            this.optimum[column] = -beyond if side == 0 else 1 + beyond
            this.bends[column] = random.uniform(0.5, 2)
            truth[key] = ("low", "high")[side]
    return truth


KINDS = ("overfitting", "noisy", "still_improving", "saturated", "train_loss_rising", "fine")


def curves(kind: str, random: np.random.Generator) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """A validation curve and a training curve of a kind: 40 and 80 points."""
    t, u = np.linspace(0.025, 1, 40), np.linspace(0.0125, 1, 80)
    gain, noise = random.uniform(0.5, 3), random.uniform(0.002, 0.01)
    speed = random.uniform(4.5, 6)
    fall, fall_train = np.exp(-speed * t), np.exp(-speed * u)
    if kind == "overfitting":
        bend = random.uniform(0.3, 0.6)
        fall = np.exp(-8 * t) + random.uniform(0.25, 0.6) * np.clip(t - bend, 0, None)
        fall_train = np.exp(-3 * u)
    elif kind == "noisy":
        noise = random.uniform(0.2, 0.4)
    elif kind == "still_improving":
        fall, fall_train = 1 - random.uniform(0.7, 0.95) * t, 1 - 0.8 * u
    elif kind == "saturated":
        fall, fall_train = np.exp(-random.uniform(15, 30) * t), np.exp(-15 * u)
    elif kind == "train_loss_rising":
        fall_train = np.exp(-8 * u) + random.uniform(0.3, 0.8) * np.clip(u - 0.5, 0, None)
        fall = np.exp(-8 * t) + 0.4 * np.clip(t - 0.5, 0, None)
    validation = 1 + gain * (fall + random.normal(0, noise, 40))
    train = 1 + gain * (fall_train + random.normal(0, 0.02, 80))
    return list(zip(t * 1000, validation, strict=True)), list(zip(u * 1000, train, strict=True))
