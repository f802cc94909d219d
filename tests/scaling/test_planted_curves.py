"""The shape of curves whose truth is known; docs/scaling.md has the table.

python tests/scaling/test_planted_curves.py [LADDERS]    # prints the table, with more ladders than the tests take
"""

import sys
from collections import Counter

from alignlab.scaling.curve import Curve
from alignlab.scaling.shapes import SHAPES, limits, monotone, shape, turning
from planted_ladders import KINDS, planted

import numpy as np
import pytest

LADDERS = 12
SILENT = ("insufficient", "below_resolution")


def confusion(ladders: int, sizes: int, count: int) -> dict[str, Counter]:
    """True shape -> how often each was said."""
    return {kind: Counter(shape(planted(kind, s, sizes, count)).name for s in range(ladders)) for kind in KINDS}


def wrong(kind: str, said: Counter) -> int:
    """Verdicts that aren't the truth and not silence."""
    return sum(count for name, count in said.items() if name not in (kind, *SILENT))


def test_shapes_of_five_sizes_and_two_hundred_items() -> None:
    told = confusion(LADDERS, 5, 200)
    right = sum(said[kind] for kind, said in told.items())
    assert right >= 0.9 * LADDERS * len(KINDS), told
    assert sum(wrong(kind, said) for kind, said in told.items()) <= 0.02 * LADDERS * len(KINDS), told


def test_few_items_give_silence_rather_than_a_wrong_shape() -> None:
    told = confusion(LADDERS, 5, 20)
    assert sum(wrong(kind, said) for kind, said in told.items()) <= 0.05 * LADDERS * len(KINDS), told
    assert sum(said["insufficient"] for said in told.values()) > LADDERS


@pytest.mark.parametrize("kind", KINDS)
def test_three_sizes_say_nothing(kind: str) -> None:
    assert shape(planted(kind, 0, 3, 2000)).name == "insufficient"


def test_monotone_rows_are_the_nearest() -> None:
    """Against pool-adjacent-violators, done by hand."""
    random = np.random.default_rng(0)
    for _ in range(50):
        y, weights = random.normal(size=6), random.uniform(0.2, 5, 6)
        blocks: list[list[float]] = []
        for value, weight in zip(y, weights, strict=True):
            blocks.append([value, weight, 1])
            while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
                b, a = blocks.pop(), blocks.pop()
                total = a[1] + b[1]
                blocks.append([(a[0] * a[1] + b[0] * b[1]) / total, total, a[2] + b[2]])
        by_hand = np.concatenate([[value] * int(count) for value, _, count in blocks])
        np.testing.assert_allclose(monotone(y[None], weights)[0], by_hand, atol=1e-12)
    hill = np.array([[0.0, 1.0, 2.0, 1.5, 0.2]])
    assert turning(hill, np.ones(5))[0] == pytest.approx(0) and turning(-hill, np.ones(5))[0] > 1


def test_noise_alone_is_rarely_taken_for_something() -> None:
    flat, up = limits(5)
    y = np.random.default_rng(1).normal(size=(4000, 5))
    level = ((y - y.mean(1, keepdims=True)) ** 2).sum(1)
    assert 0.02 < np.mean(level > flat) < 0.04
    assert np.mean(((y - monotone(y, np.ones(5))) ** 2).sum(1) > up) < 0.015


def test_what_items_share_is_taken_out_of_the_noise() -> None:
    curve = planted("flat", 3, 5, 4000)
    alone = Curve(curve.task, curve.metric, curve.x, curve.values, curve.n, curve.names)
    assert (curve.noise < 0.85 * alone.noise).all()


if __name__ == "__main__":
    many = int(sys.argv[1]) if sys.argv[1:] else 100
    for sizes, count in ((5, 200), (4, 200), (8, 200), (5, 1000), (5, 50), (5, 20), (3, 200)):
        told = confusion(many, sizes, count)
        print(f"\n{sizes} sizes, {count} items\n\n| true shape | right | wrong | {' | '.join(SHAPES)} |")
        print(f"|{'---|' * (3 + len(SHAPES))}")
        for kind, said in told.items():
            cells = [str(said[name] or "") for name in SHAPES]
            print(f"| {kind} | {said[kind] / many:.0%} | {wrong(kind, said) / many:.0%} | {' | '.join(cells)} |")
