"""What a study varies: a parameter with its range or its values, and its place between 0 and 1."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Scale = Literal["linear", "log"]
Role = Literal["scientific", "nuisance"]
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*|/[A-Za-z0-9_./-]+")
_KEYS = {"low", "high", "scale", "integer", "points"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a study.

    Attributes:
        key: as on the command line, `optim.lr`.
        role: scientific: its effect is the question; nuisance: tuned away, so that the comparison is fair.
        values: to choose from; empty for a range.
        when: it exists only in trials where these keys have these values.
        points: of a range in a grid.
    """

    key: str
    role: Role
    low: float = math.nan
    high: float = math.nan
    scale: Scale = "linear"
    integer: bool = False
    values: tuple[Any, ...] = ()
    when: Mapping[str, Any] = field(default_factory=dict)
    points: int | None = None

    @property
    def is_range(self) -> bool:
        return not self.values

    @property
    def is_seed(self) -> bool:
        """Whether its numbers are names of repetitions: no value lies between two others, and none is better."""
        return self.is_range and re.search(r"(^|[._])seed$", self.key) is not None

    def at(self, place: float) -> Any:
        """The value at a place from 0 up to, not including, 1; four digits of a real one."""
        if self.values:
            return self.values[min(int(place * len(self.values)), len(self.values) - 1)]
        if self.integer:
            return int(min(max(round(self._between(place)), self.low), self.high))
        return min(max(float(f"{self._between(place):.4g}"), self.low), self.high)

    def place(self, value: Any) -> float:
        """Where a value lies: 0 at the low end of the range, 1 at the high end."""
        low, high, value = float(self.low), float(self.high), float(value)
        if self.scale == "log":
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)

    def value(self, place: float) -> float:
        """The value at a place that may lie outside of the range, three digits of it."""
        value = float(f"{self._between(place):.3g}")
        return round(value) if self.integer else value

    def holds(self, point: Mapping[str, Any]) -> bool:
        """Whether it exists in a trial with these values."""
        return all(point.get(key) == value for key, value in self.when.items())

    def _between(self, place: float) -> float:
        if self.scale == "log":
            return math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
        return self.low + place * (self.high - self.low)


def parameter(key: str, given: Any, role: Role, when: Mapping[str, Any] | None = None) -> Parameter:
    """A parameter as a study's file gives it: a list of values, or a range.

    Raises:
        ValueError: what is wrong with it, in one line.
    """
    when = dict(when or {})
    if isinstance(given, Sequence) and not isinstance(given, str):
        if len(given) < 2 or any(value in given[:place] for place, value in enumerate(given)):
            raise ValueError(f"{key}: a list of values needs two or more, each once, not {list(given)}")
        return Parameter(key, role, values=tuple(given), when=when)
    if not isinstance(given, Mapping) or not {"low", "high"} <= set(given):
        raise ValueError(f"{key}: give a list of values, or low, high and scale, not {given!r}")
    if unknown := set(map(str, given)) - _KEYS:
        raise ValueError(f"{key}: unknown {', '.join(sorted(unknown))} (a range has {', '.join(sorted(_KEYS))})")
    low, high, scale = _number(given["low"]), _number(given["high"]), given.get("scale")
    if low is None or high is None:
        raise ValueError(f"{key}: low={given['low']!r} and high={given['high']!r} must be finite numbers")
    if scale not in ("linear", "log"):
        raise ValueError(f"{key}: say scale: log or scale: linear, not {scale!r} (rates and decays are usually log)")
    if low >= high:
        raise ValueError(f"{key}: low={low:g} must be below high={high:g}")
    if scale == "log" and low <= 0:
        raise ValueError(f"{key}: low={low:g} has no logarithm; begin above zero or say scale: linear")
    whole = given.get("integer", False)
    if whole and (low != int(low) or high != int(high)):
        raise ValueError(f"{key}: low={low:g} and high={high:g} must be whole with integer: true")
    return Parameter(key, role, low, high, scale, bool(whole), when=when, points=given.get("points"))


def flat(tree: Any, key: str = "") -> dict[str, Any]:
    """`{optim: {lr: {low, high}}}` and `{optim.lr: {low, high}}` are the same: dotted key to range, list or value."""
    if isinstance(tree, Mapping) and tree and not {"low", "high", "scale"} & set(tree):
        return {k: v for name, below in tree.items() for k, v in flat(below, f"{key}.{name}" if key else name).items()}
    return {key: tree} if key else {}


def word(key: str, value: Any) -> str:
    """A key and a value as on a command line."""
    return f"{key}={_text(value)}"


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_text(each)}" for name, each in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_text, value)) + "]"
    if _PLAIN.fullmatch(value) and value.lower() not in ("null", "true", "false", "nan", "inf"):
        return value
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value) + "'"


def _number(value: Any) -> float | None:
    """A number, YAML's 1e-4 too, which it takes for a text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None
