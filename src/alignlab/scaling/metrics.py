"""Metrics of the same outputs: what each is read from, which way is good, whether a little progress shows in it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Item = dict[str, Any]


@dataclass(frozen=True)
class Metric:
    """A metric of items.

    Attributes:
        higher: whether large is good.
        continuous: whether a model that gets a little better at every token or option shows it in proportion; else all
            or nothing, as a product of many tokens' chances is nearly.
        hits: whether an item gives 0 or 1, so that n items can't tell less than 1 / n from nothing.
        best: the value of a perfect model; None where there is none.
        of: value of an item; None where the item hasn't what it is read from.
        centre: what is made of the items' values.
        about: a line.
    """

    name: str
    higher: bool
    continuous: bool
    best: float | None
    of: Callable[[Item], float | None]
    hits: bool = False
    centre: Literal["mean", "median"] = "mean"
    about: str = ""


def tokens(text: Any) -> list[Any]:
    """The tokens of a target: a list's elements, the words of a text, the characters of a single word."""
    if isinstance(text, list | tuple):
        return list(text)
    words = str(text).split()
    return words if len(words) > 1 else list("".join(words))


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Insertions, deletions and replacements that turn one into the other (Levenshtein)."""
    if a == b:
        return 0
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


def _both(item: Item) -> tuple[list[Any], list[Any]] | None:
    if item.get("target") is None or item.get("prediction") is None:
        return None
    return tokens(item["target"]), tokens(item["prediction"])


def _exact(item: Item) -> float | None:
    if item.get("correct") in (True, False):  # 1 and 0 too
        return float(item["correct"])
    both = _both(item)
    return None if both is None else float(both[0] == both[1])


def _edit(item: Item) -> float | None:
    both = _both(item)
    return None if both is None else float(edit_distance(*both))


def _token_accuracy(item: Item) -> float | None:
    both = _both(item)
    if both is None or not both[0]:
        return None
    target, said = both
    return sum(a == b for a, b in zip(target, said, strict=False)) / len(target)


def _logprobs(item: Item) -> list[float] | None:
    return item.get("target_logprobs") or None


def _token_logprob(item: Item) -> float | None:
    logprobs = _logprobs(item)
    return None if logprobs is None else sum(logprobs) / len(logprobs)


def _sequence_probability(item: Item) -> float | None:
    logprobs = _logprobs(item)
    return None if logprobs is None else math.exp(min(sum(logprobs), 0.0))


def chances(item: Item) -> list[float] | None:
    """Probabilities of an item's options; None where it has none."""
    options, answer = item.get("option_logprobs"), item.get("answer")
    if not options or not isinstance(answer, int) or not 0 <= answer < len(options):
        return None
    top = max(options)
    raw = [math.exp(each - top) for each in options]
    return [each / sum(raw) for each in raw]


def _choice(item: Item) -> float | None:
    shares = chances(item)
    if shares is None:
        return None
    tied = [place for place, share in enumerate(shares) if share == max(shares)]
    return float(item["answer"] in tied) / len(tied)  # equal options are drawn by lot


def _brier(item: Item) -> float | None:
    shares = chances(item)
    return None if shares is None else sum((p - (i == item["answer"])) ** 2 for i, p in enumerate(shares))


def _option_probability(item: Item) -> float | None:
    shares = chances(item)
    return None if shares is None else shares[item["answer"]]


def _rank(item: Item) -> float | None:
    rank = item.get("rank")
    return float(rank) if isinstance(rank, int | float) and not isinstance(rank, bool) and rank >= 1 else None


def _of_rank(function: Callable[[float], float]) -> Callable[[Item], float | None]:
    def value(item: Item) -> float | None:
        rank = _rank(item)
        return None if rank is None else function(rank)

    return value


METRICS = {
    metric.name: metric
    for metric in (
        Metric("exact_match", True, False, 1.0, _exact, hits=True, about="all of the target, or nothing"),
        Metric("edit_distance", False, True, 0.0, _edit, about="tokens inserted, deleted, replaced"),
        Metric("token_accuracy", True, True, 1.0, _token_accuracy, about="share of the target's tokens in place"),
        Metric("token_logprob", True, True, 0.0, _token_logprob, about="mean log-probability of a target's token"),
        Metric("sequence_probability", True, False, 1.0, _sequence_probability, about="exact match without its floor"),
        Metric("multiple_choice", True, False, 1.0, _choice, hits=True, about="the likeliest option is right"),
        Metric("brier", False, True, 0.0, _brier, about="squared distance of the options' probabilities"),
        Metric("option_probability", True, True, 1.0, _option_probability, about="of the right option"),
        Metric("rank_1", True, False, 1.0, _of_rank(lambda r: float(r <= 1)), hits=True, about="recall at 1"),
        Metric("reciprocal_rank", True, True, 1.0, _of_rank(lambda r: 1 / r), about="mean reciprocal rank"),
        Metric("mean_rank", False, True, 1.0, _of_rank(float), about="1 is best"),
        Metric("log_rank", False, True, 0.0, _of_rank(math.log2), about="mean log2 of the rank"),
        Metric("median_rank", False, True, 1.0, _of_rank(float), centre="median", about="1 is best"),
    )
}


def part(name: str) -> Metric:
    """A composite task's part as a metric of its own."""

    def value(item: Item) -> float | None:
        parts = item.get("parts")
        return float(parts[name]) if isinstance(parts, dict) and isinstance(parts.get(name), bool) else None

    return Metric(f"part:{name}", True, False, 1.0, value, hits=True, about="a part of the task")
