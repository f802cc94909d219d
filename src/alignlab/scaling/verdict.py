"""What the curves of one task say together: whether a jump is the metric's or the model's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignlab.scaling.curve import Curve
from alignlab.scaling.shapes import AGREE, SIZES, Shape

UP = ("smooth_up", "saturating")
HITS_NEEDED = 8  # of the largest model, before anything can be said of a share


@dataclass(frozen=True)
class Verdict:
    """What is said of a task.

    Attributes:
        code: `metric_artefact`, `sharp_in_all`, `sharp_unconfirmed`, `smooth`, `flat`, `inverse`, `u_shape`,
            `inverted_u`, `below_resolution`, `mixed`, `insufficient`.
        text: for people.
        then: how many items and which sizes would settle it.
    """

    code: str
    text: str
    then: tuple[str, ...] = ()


Told = Sequence[tuple[Curve, Shape]]


def verdict(told: Told) -> Verdict:
    """The verdict on a task from its curves and their shapes."""
    code, text = _said(told)
    return Verdict(code, text, tuple(_next(told, code)))


def _said(told: Told) -> tuple[str, str]:
    if all(len(curve) < SIZES for curve, _ in told):
        most = max(len(curve) for curve, _ in told)
        return "insufficient", f"{most} sizes; {SIZES} are the least from which a curve is read."
    sharp = [(curve, each) for curve, each in told if each.name == "sharp"]
    smooth = [(curve, each) for curve, each in told if _rises(each)]
    below = [curve for curve, each in told if each.name == "below_resolution"]
    decided = [
        (curve, _family(each)) for curve, each in told if _family(each) not in ("insufficient", "below_resolution")
    ]
    seen = [curve for curve, _ in smooth if curve.metric.continuous]
    if below and not any(curve.metric.hits for curve, _ in sharp):
        text = f"Below resolution: no model is above what no hit at all allows ({_names(below)})"
        text += f"; meanwhile better from size to size: {_names(seen)}." if seen else "."
        return "below_resolution", text
    gradual = {family for curve, family in decided if curve.metric.continuous}
    if sharp and seen and gradual <= {"smooth", "flat"}:
        text = f"The jump is the metric's. Sharp: {_names(c for c, _ in sharp)}. "
        return "metric_artefact", f"{text}Better from size to size, of the same outputs: {_names(seen)}."
    if not decided:
        return "insufficient", f"Not enough to tell: {'; '.join(f'{c.metric.name}: {s.why}' for c, s in told)}."
    families = {family for _, family in decided}
    if gradual == {"sharp"}:
        others = [f"{curve.metric.name} {family.replace('_', ' ')}" for curve, family in decided if family != "sharp"]
        more = f" Not so: {', '.join(others)}." if others else ""
        return "sharp_in_all", f"Sharp, also where little progress would show: {_names(c for c, _ in sharp)}.{more}"
    if families == {"sharp"}:
        names = _names(c for c, _ in sharp)
        return "sharp_unconfirmed", f"Sharp: {names}; nothing in which little progress shows can be told."
    if len(families) > 1:
        parts = ", ".join(f"{curve.metric.name} {family.replace('_', ' ')}" for curve, family in decided)
        return "mixed", f"The metrics disagree: {parts}."
    (family,) = families
    names = _names(c for c, _ in decided)
    return family, {
        "smooth": f"Better from size to size, without a jump: {names}.",
        "flat": f"No change over the sizes: {names}.",
        "inverse": f"Inverse scaling, worse with size: {names}.",
        "u_shape": f"Worse first and then better: {names}.",
        "inverted_u": f"Better first and then worse: {names}.",
    }[family]


def _rises(each: Shape) -> bool:
    return each.name in UP or (each.name == "insufficient" and each.rises >= AGREE)


def _family(each: Shape) -> str:
    return "smooth" if _rises(each) else each.name


def _names(curves: object) -> str:
    return ", ".join(dict.fromkeys(curve.metric.name for curve in curves))


def _next(told: Told, code: str) -> list[str]:
    curve = max((c for c, _ in told), key=len)
    lines = []
    if len(curve) < SIZES:
        lines.append(f"Add {SIZES - len(curve)} sizes at least; five over two powers of ten are a good ladder.")
    for each, said in told:
        if said.name == "below_resolution":
            lines.append(_items_for(each, told))
        elif said.name == "insufficient" and len(each) >= SIZES and (n := items_to_settle(each)):
            lines.append(f"{each.metric.name}: about {n:,} items (now {int(each.n.min()):,}) would tell its shape.")
    jumps: dict[tuple[float, float], list[Curve]] = {}
    for each, said in told:
        if said.name == "sharp" and said.place:
            jumps.setdefault(said.place, []).append(each)
    for (low, high), curves in jumps.items():
        amid = f"train a model at {_size(math.sqrt(low * high))}, amid the jump ({_size(low)} to {_size(high)})"
        lines.append(f"{_names(curves)}: {amid}, to see whether it is one.")
    if code == "sharp_unconfirmed":
        lines.append(
            "Keep log-probabilities or predictions of each item (items.jsonl), to look at a continuous metric."
        )
    return list(dict.fromkeys(line for line in lines if line))


def items_to_settle(curve: Curve) -> int | None:
    """How many items would tell a change of a fifth of an item's deviation from none; None where nobody knows n."""
    if not curve.n.min() or not curve.spread:
        return None
    u = curve.places - curve.places.mean()
    error = math.sqrt(float((curve.noise * u**2).sum())) / float((u**2).sum()) * float(np.ptp(curve.places))
    wanted = 0.2 * curve.spread / (1.96 + 0.84)  # a fifth of a deviation, seen in four cases of five
    times = max((error / wanted) ** 2, 2.0)
    return _round_up(float(curve.n.min()) * times)


def _items_for(curve: Curve, told: Told) -> str:
    """How many items the largest model needs, by a metric of the same outputs that has no floor, where there is one."""
    other = next((c for c, _ in told if c.metric.name == "sequence_probability"), None)
    if other is not None and other.values[-1] > 0:
        n = _round_up(HITS_NEEDED / float(other.values[-1]))
        much = f"{float(other.values[-1]):.2g}"
        return f"{curve.metric.name}: {n:,} items for {HITS_NEEDED} hits of the largest model (it has {much} an item)."
    n = _round_up(10 * float(curve.n.max()))
    where = f"or models beyond {_size(float(curve.x[-1]))}"
    return f"{curve.metric.name}: more than {n:,} items, {where}; now n is {int(curve.n.max()):,}."


def _size(x: float) -> str:
    return f"{x:.3g}"


def _round_up(value: float) -> int:
    """To two digits."""
    if not math.isfinite(value) or value > 1e12:
        return 10**12
    power = 10 ** max(math.floor(math.log10(max(value, 1))) - 1, 0)
    return math.ceil(value / power) * power
