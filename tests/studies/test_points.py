"""Points of a study: even, a pure function of seed and number, in pairs over the scientific settings."""

import importlib.util
import itertools

from alignlab.studies.design.adaptive import proposed
from alignlab.studies.design.declaration import Study, declared
from alignlab.studies.design.points import halton, point, sobol, total
from alignlab.studies.trials import Trial

import numpy as np
import pytest


def study(**changes: object) -> Study:
    unit = {"low": 0, "high": 1, "scale": "linear"}
    given = {"goal": "x", "metric": {"name": "a", "mode": "max"}, "nuisance": {name: unit for name in "abc"}}
    return declared(given | changes)


def centred_discrepancy(places: np.ndarray) -> float:
    """Hickernell (1998), the squared centred L2 discrepancy."""
    n, d = places.shape
    z = np.abs(places - 0.5)
    one = np.prod(1 + 0.5 * z - 0.5 * z**2, axis=1).sum()
    pairs = 1 + 0.5 * z[:, None] + 0.5 * z[None] - 0.5 * np.abs(places[:, None] - places[None])
    return (13 / 12) ** d - 2 / n * one + np.prod(pairs, axis=2).sum() / n**2


@pytest.mark.parametrize("sampler", ["halton", "sobol"])
def test_they_are_three_times_as_even_as_random_ones(sampler: str) -> None:
    def mean(name: str) -> float:
        measured = []
        for seed in range(40):
            this = study(sampler=name, seed=seed)
            measured.append(centred_discrepancy(np.array([list(point(this, n).values()) for n in range(16)])))
        return float(np.mean(measured))

    assert mean("random") > 3 * mean(sampler)


@pytest.mark.parametrize("sampler", ["halton", "sobol", "random", "grid"])
def test_more_trials_go_on_with_the_same(sampler: str) -> None:
    ranges = {name: {"low": 0, "high": 1, "scale": "linear", "points": 4} for name in "abc"}
    few, many = (study(sampler=sampler, trials=trials, nuisance=ranges) for trials in (16, 32))
    assert [point(few, n) for n in range(16)] == [point(many, n) for n in range(16)]
    assert len({tuple(point(many, n).values()) for n in range(32)}) == 32
    assert point(many, 7) == point(study(sampler=sampler, trials=32, nuisance=ranges), 7), "in any order"
    assert sampler == "grid" or point(many, 7) != point(study(sampler=sampler, seed=1, nuisance=ranges), 7)


def test_settings_take_turns_and_share_their_points() -> None:
    this = study(scientific={"teacher": [True, False], "noise": [0, 0.5]}, trials=8)
    points = [point(this, number) for number in range(8)]
    assert [(p["teacher"], p["noise"]) for p in points[:4]] == [(True, 0), (True, 0.5), (False, 0), (False, 0.5)]
    places = [tuple(p[name] for name in "abc") for p in points]
    assert len(set(places[:4])) == len(set(places[4:])) == 1 and places[0] != places[4]


def test_a_condition_holds_or_the_parameter_is_not_there() -> None:
    choices = {"when": {"optim": "adamw"}, "nuisance": {"optim.beta": [0.9, 0.99]}}
    this = study(scientific={"optim": ["adamw", "muon"]}, conditional=[choices])
    assert "optim.beta" in point(this, 0) and "optim.beta" not in point(this, 1)


def test_a_grid_has_every_combination_once() -> None:
    this = study(sampler="grid", nuisance={"a": [1, 2, 3], "b": [True, False]}, scientific={"c": ["x", "y"]}, trials=99)
    there = {tuple(sorted(point(this, n).items())) for n in range(total(this))}
    assert total(this) == 12 and len(there) == 12


def test_coordinates_are_stratified() -> None:
    """Each of the first b^k points of a column lies in an interval of its own: what makes the sequence even."""
    for column, base in enumerate((2, 3, 5, 7)):
        cells = sorted(int(halton(number, column, seed=3) * base**2) for number in range(base**2))
        assert cells == list(range(base**2))
    for column in range(3):
        assert sorted(int(sobol(number, 3, seed=3)[column] * 16) for number in range(16)) == list(range(16))
    pairs = itertools.product(range(2), range(3))
    assert {(int(halton(n, 0, 5) * 2), int(halton(n, 1, 5) * 3)) for n in range(6)} == set(pairs)


def test_tpe_finds_the_bowl_or_says_what_it_needs() -> None:
    ranges = {"lr": {"low": 1e-4, "high": 1e-1, "scale": "log"}, "k": [1, 2, 3]}
    this, trials = study(sampler="tpe", nuisance=ranges, trials=30), {}
    if importlib.util.find_spec("optuna") is None:
        with pytest.raises(ValueError, match="sampler=tpe needs Optuna"):
            proposed(this, trials, [0])
        pytest.skip("needs optuna")
    for number in range(0, 30, 2):
        for n, chosen in proposed(this, trials, [number, number + 1]).items():
            loss = np.log10(chosen["lr"] / 3e-3) ** 2 + (chosen["k"] - 2) ** 2
            bad = chosen["lr"] > 5e-2
            trials[n] = Trial(n, chosen, "infeasible" if bad else "ok", value=None if bad else -loss)
    values = [-trial.value for trial in trials.values() if trial.value is not None]
    assert min(values) < 0.1 and np.mean(values[-10:]) < np.mean(values[:10])
