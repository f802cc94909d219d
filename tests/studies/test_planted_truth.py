"""Each finding against studies whose truth is known: precision and recall at 32 trials; docs/studies.md has the table.

python tests/studies/test_planted_truth.py     # prints the table, with more worlds than the tests take
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from alignlab.studies.curve_findings import findings_of
from alignlab.studies.findings import findings
from planted import KINDS, World, curves, moved, world

import numpy as np
import pytest

WORLDS = 30
Seen = tuple[str, bool, bool]  # finding, true, said


def bounds(worlds: int) -> Iterator[Seen]:
    for seed in range(worlds):
        this = world(seed)
        truth = moved(this, np.random.default_rng([seed, 3]))
        said = {f.parameter: f.details["side"] for f in findings(this.data()) if f.code == "boundary"}
        for key in ("optim.lr", "optim.weight_decay", "model.dropout"):
            yield from _side(truth.get(key), said.get(key), "optimum outside")


def thresholds(worlds: int) -> Iterator[Seen]:
    for seed in range(worlds):
        limit = np.random.default_rng([seed, 4]).uniform(0.5, 0.85) if seed % 2 else np.inf
        data = world(seed, limit=limit, accidents=0.1).data()
        told = [f for f in findings(data) if f.code in ("infeasible_region", "unstable_beyond")]
        right = [f for f in told if f.parameter == "optim.lr" and f.details["side"] == "high"]
        yield "divergence above a threshold", seed % 2 == 1, bool(right)
        for _ in range(len(told) - len(right)):
            yield "divergence above a threshold", False, True
        if seed % 2 and right:  # and the threshold itself
            place = data.parameters[0].place(right[0].details["limit"])
            assert abs(place - limit) < 0.15


def categories(worlds: int, scientific: bool = False) -> Iterator[Seen]:
    name = "two settings" if scientific else "optimum on a category"
    for seed in range(worlds):
        gap = np.random.default_rng([seed, 5]).uniform(0.1, 0.3) if seed % 2 else 0.0
        offsets = {"a": 0.0, "b": gap} if seed % 4 < 2 else {"a": gap, "b": 0.0}
        data = world(seed, offsets=offsets, scientific=scientific).data()
        better = [f.details["best"] for f in findings(data) if f.code == "better"]
        truth = min(offsets, key=offsets.get) if gap else None
        yield from _side(truth, better[0] if better else None, name)


def _side(truth: str | None, said: str | None, name: str) -> Iterator[Seen]:
    """A wrong side is a miss and a false alarm."""
    if said is not None and truth is not None and said != truth:
        yield name, True, False
        yield name, False, True
    else:
        yield name, truth is not None, said is not None


def shapes(worlds: int) -> Iterator[Seen]:
    for seed in range(worlds):
        for kind in KINDS:
            validation, train = curves(kind, np.random.default_rng([seed, KINDS.index(kind)]))
            said = findings_of(validation, train, "min")
            for code in KINDS[:-1]:
                yield code, code == kind, code in said


def score(seen: Iterator[Seen]) -> dict[str, tuple[float, float, int]]:
    """Finding -> precision, recall, cases."""
    counts = Counter(seen)
    scores = {}
    for name in dict.fromkeys(name for name, _, _ in counts):
        right = counts[name, True, True]
        said, true = right + counts[name, False, True], right + counts[name, True, False]
        cases = sum(n for (other, _, _), n in counts.items() if other == name)
        scores[name] = (right / said if said else 0.0, right / true if true else 0.0, cases)
    return scores


@pytest.mark.parametrize("worlds", [bounds, thresholds, categories, lambda n: categories(n, True), shapes])
def test_precision_and_recall(worlds: object) -> None:
    for name, (precision, recall, cases) in score(worlds(WORLDS)).items():
        assert precision >= 0.9 and recall >= 0.9, f"{name}: precision {precision:.2f}, recall {recall:.2f} of {cases}"


def wrongly_better(studies: int) -> float:
    """The share of studies with equal settings in which one is said to be better."""
    said = 0
    for seed in range(1000, 1000 + studies):
        data = world(seed, offsets={"a": 0.0, "b": 0.0}, accidents=0.05).data()
        said += any(f.code == "better" for f in findings(data))
    return said / studies


def test_equal_settings_are_not_distinguishable() -> None:
    assert wrongly_better(200) <= 0.08


def test_a_seed_has_no_bounds() -> None:
    this = world(0)
    this.optimum[0], this.bends[0] = -0.4, 2.0
    data = this.data()
    assert "optim.lr" in {f.parameter for f in findings(data) if f.code == "boundary"}
    for trial in data.trials:
        trial.point["data.seed"] = trial.point.pop("optim.lr")
    data.parameters[0] = replace(data.parameters[0], key="data.seed")
    assert "data.seed" not in {f.parameter for f in findings(data)}


def test_no_trial_or_one_says_nothing_wrong() -> None:
    for trials in (1, 3, 7):
        told = findings(world(0, offsets={"a": 0.0, "b": 0.0}).data(trials))
        assert not [f for f in told if f.code in ("better", "boundary", "infeasible_region")]
    hopeless = World(0, np.full(3, 0.5), np.ones(3), limit=-1.0).data(8)
    assert [f.code for f in findings(hopeless)] == ["many_infeasible", "too_few_trials"]


if __name__ == "__main__":
    many = int(sys.argv[1]) if sys.argv[1:] else 100
    print("| finding | precision | recall | cases |\n|---|---|---|---|")
    for each in (bounds, thresholds, categories, lambda n: categories(n, True), shapes):
        for name, (precision, recall, cases) in score(each(many)).items():
            print(f"| {name} | {precision:.3f} | {recall:.3f} | {cases} |")
    print(f"\nequal settings, one said to be better: {wrongly_better(200):.1%} of 200 studies")
