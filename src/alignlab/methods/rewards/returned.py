"""What a reward function may return, brought to one form: for each named part a number for every response.

Legend: B responses.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Number
from typing import Any, NamedTuple

import torch

Label = Callable[[int], str]
SCORE = "score"  # the name of a response's own score among named parts; what stands beside it is logged only
_OF_ALL = ("rewards", "scores")  # OpenRLHF's names of the scores of all responses


class Parts(NamedTuple):
    """Named scores."""

    values: dict[str, list[float]]  # name ("" for a plain score) -> B numbers; NaN: that response has none
    logged: dict[str, list[float]]  # what isn't part of the score
    wrong: list[str | None]  # B, why a response is left out


def parts_of(returned: Any, number: int, where: str, leave_out: bool, label: Label = "response {}".format) -> Parts:
    """Scores of `number` responses.

    They are numbers (a list, a tensor), or a mapping of names to such, or for each response a mapping of names to
    numbers. Of a response that has a `score` the other numbers are logged only.

    Args:
        where: what has returned it, for messages.
        label: a response's number in words.
        leave_out: a value that is no finite number becomes NaN, with the reason in `wrong`; else it ends the run.
    Raises:
        ValueError: another length, no numbers, or names that differ from response to response.
    """
    if isinstance(returned, Mapping):
        return _of_columns(returned, number, where, leave_out, label)
    rows = _listed(returned, number, where)
    if any(isinstance(_plain(row), Mapping) for row in rows):
        return _of_rows([_plain(row) for row in rows], where, leave_out, label)
    values, wrong = _numbers(rows, where, leave_out, label)
    return Parts({"": values}, {}, wrong)


def _of_columns(returned: Mapping, number: int, where: str, leave_out: bool, label: Label) -> Parts:
    whole = next((name for name in _OF_ALL if name in returned), None)
    if whole is None:
        named, logged = returned, {}
    else:
        extra = returned.get("extra_logs")
        named, logged = {"": returned[whole]}, extra if isinstance(extra, Mapping) else {}
    if not named:
        raise ValueError(f"{where} returned no part at all")
    values, wrong = {}, [None] * number
    for name, column in named.items():
        inside = f"{where}, part {name}," if name else where
        values[str(name)], reasons = _numbers(_listed(column, number, inside), inside, leave_out, label)
        wrong = [a or b for a, b in zip(wrong, reasons, strict=True)]
    kept = {
        str(name): _numbers(_listed(column, number, where), where, True, label)[0] for name, column in logged.items()
    }
    return Parts(values, kept, wrong)


def _of_rows(rows: Sequence[Any], where: str, leave_out: bool, label: Label) -> Parts:
    first = next(row for row in rows if isinstance(row, Mapping))
    names, scored = [str(name) for name in first], SCORE in first
    if not names:
        raise ValueError(f"{where} returned no part at all")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for index, row in enumerate(rows):
        if isinstance(row, Mapping) and sorted(map(str, row)) != sorted(names):
            raise ValueError(
                f"{where} returned the parts {', '.join(map(str, row))} for {label(index)}, and {', '.join(names)} "
                "for others; they must be the same"
            )
        for name in names:
            columns[name].append(row.get(name) if isinstance(row, Mapping) else row)
    if scored:
        values, wrong = _numbers(columns.pop(SCORE), where, leave_out, label)
        logged = {name: _numbers(c, where, True, label)[0] for name, c in columns.items() if any(_number(x) for x in c)}
        return Parts({"": values}, logged, wrong)
    return _of_columns(columns, len(rows), where, leave_out, label)


def _listed(values: Any, number: int, where: str) -> list[Any]:
    if isinstance(values, torch.Tensor):
        if values.shape != (number,):
            raise ValueError(
                f"{where} returned shape {tuple(values.shape)} for {number} responses; it must be ({number},)"
            )
        return values.detach().to("cpu", torch.float64).tolist()
    if isinstance(values, str | bytes) or not hasattr(values, "__len__") or not hasattr(values, "__iter__"):
        raise ValueError(f"{where} returned {_shown(values)}, not {number} numbers")
    values = list(values)
    if len(values) != number:
        raise ValueError(f"{where} returned {len(values)} scores for {number} responses")
    return values


def _numbers(values: Sequence[Any], where: str, leave_out: bool, label: Label) -> tuple[list[float], list[str | None]]:
    numbers, wrong = [], []
    for index, value in enumerate(values):
        if _number(value) and math.isfinite(float(value)):
            numbers.append(float(value))
            wrong.append(None)
            continue
        what = value if isinstance(value, _Wrong) else f"returned {_shown(value)}"
        if not leave_out:
            ending = "" if isinstance(value, _Wrong) else "; scores must be finite numbers"
            raise ValueError(f"{where} {what} for {label(index)}{ending}")
        numbers.append(math.nan)
        wrong.append(str(what))
    return numbers, wrong


class _Wrong(str):
    """Why there is no value."""


def no_value(reason: str) -> Any:
    """What stands for the score of a response that couldn't be scored."""
    return _Wrong(reason)


def _number(value: Any) -> bool:
    return isinstance(value, Number) or (isinstance(value, torch.Tensor) and value.numel() == 1) or _of_numpy(value)


def _of_numpy(value: Any) -> bool:
    return type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0 and hasattr(value, "item")


def _plain(row: Any) -> Any:
    """A NamedTuple of parts as a mapping."""
    return row._asdict() if hasattr(row, "_asdict") else row


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    kind = "" if value is None or isinstance(value, int | float) else f"{type(value).__name__} "
    return kind + (text if len(text) <= 60 else text[:57] + "...")
