"""The points of a study: a pure function of its seed and a trial's number, so that more trials go on with the same.

Halton, A. (1960), with random permutations of the digits (Owen, arXiv:1706.02808): a low discrepancy without the
stripes that the plain sequence has from the fifth dimension on. Sobol points are torch's, Owen-scrambled.
"""

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from alignlab.studies.design.declaration import Study
from alignlab.studies.design.parameters import Parameter

_BITS = 54  # of a place: as many digits as a double can tell apart


def point(study: Study, number: int) -> dict[str, Any]:
    """The values of a trial: key -> value; those whose condition doesn't hold are left out.

    Trials take the scientific settings in turn, and all settings get the same places of the other parameters: the
    comparison is in pairs.

    Args:
        number: of the trial, from 0.
    """
    settings = study.settings
    turn, setting = divmod(number, len(settings))
    if study.sampler == "grid":
        values = _grid(study, turn)
    else:
        places = _places(study, turn)
        values = [each.at(place) for each, place in zip(study.searched, places, strict=True)]
    chosen = dict(settings[setting])
    for each, value in zip(study.searched, values, strict=True):  # conditions look at what comes before
        if each.holds({**study.fixed, **chosen}):
            chosen[each.key] = value
    return chosen


def total(study: Study) -> int:
    """How many trials there are: what was asked for, or what the grid has."""
    if study.sampler != "grid":
        return study.trials
    return min(study.trials, len(study.settings) * math.prod(len(_steps(each)) for each in study.searched))


def _places(study: Study, turn: int) -> list[float]:
    width = len(study.searched)
    if study.sampler == "halton":
        return [halton(turn, column, study.seed) for column in range(width)]
    if study.sampler == "sobol":
        return sobol(turn, width, study.seed)
    return np.random.default_rng([study.seed, turn]).random(width).tolist()


def halton(number: int, column: int, seed: int) -> float:
    """A coordinate of a point of the scrambled Halton sequence, from 0 up to 1."""
    base, permutations = _permutations(column, seed)
    place, weight = 0.0, 1.0
    for permutation in permutations:
        weight /= base
        place += weight * permutation[number % base]
        number //= base
    return min(place, math.nextafter(1.0, 0.0))


def sobol(number: int, width: int, seed: int) -> list[float]:
    """A point of the scrambled Sobol sequence."""
    from torch.quasirandom import SobolEngine

    if width == 0:
        return []
    engine = SobolEngine(width, scramble=True, seed=seed)
    return engine.fast_forward(number).draw(1)[0].double().clamp(max=math.nextafter(1.0, 0.0)).tolist()


@lru_cache(maxsize=1024)
def _permutations(column: int, seed: int) -> tuple[int, tuple[tuple[int, ...], ...]]:
    base = next(itertools.islice(_primes(), column, None))
    random = np.random.default_rng([seed, column])
    digits = math.ceil(_BITS / math.log2(base))
    return base, tuple(tuple(random.permutation(base).tolist()) for _ in range(digits))


def _primes() -> Iterator[int]:
    return (n for n in itertools.count(2) if all(n % k for k in range(2, math.isqrt(n) + 1)))


def _grid(study: Study, turn: int) -> list[Any]:
    values = []
    for each in reversed(study.searched):  # the last one varies fastest
        steps = _steps(each)
        turn, place = divmod(turn, len(steps))
        values.append(steps[place])
    return values[::-1]


def _steps(each: Parameter) -> list[Any]:
    if each.values:
        return list(each.values)
    count = each.points or 1
    return [each.at(place / max(count - 1, 1)) for place in range(count)]
