"""Which logged metrics belong into one picture."""

from collections.abc import Sequence

Curve = tuple[list[float], list[float]]  # steps, values
# Title -> what names of its metrics hold, or whole names; the first that fits counts.
PANELS = {
    "losses": ("loss",),
    "retrieval": ("recall",),
    "accuracy": ("accuracy",),
    "score": ("objective/score", "val/score", "val/judge"),
    "KL to the reference, nats a response": ("objective/kl", "val/kl"),
    "response length, tokens": ("objective/response_length", "val/response_length"),
}


def curves(rows: Sequence[dict[str, float]]) -> dict[str, Curve]:
    """Metric -> its steps and values, by name; what isn't called `split/name` is left out."""
    found: dict[str, Curve] = {}
    for row in rows:
        for name, value in row.items():
            if "/" in name:
                steps, values = found.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(value)
    return dict(sorted(found.items()))


def panels(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, Curve]]:
    """Sorts the logged metrics into panels, title -> metric -> curve; panels without a curve are left out."""
    sorted_in: dict[str, dict[str, Curve]] = {}
    for name, curve in curves(rows).items():
        sorted_in.setdefault(panel(name), {})[name] = curve
    return {title: sorted_in[title] for title in (*PANELS, "other") if title in sorted_in}


def panel(name: str) -> str:
    """The title of the panel that a metric belongs to."""
    for title, words in PANELS.items():
        if any(name == word if "/" in word else word in name for word in words):
            return title
    return "other"


def legible(curves: dict[str, Curve]) -> dict[str, Curve]:
    """Of one panel, what a picture has room for: no recall at 5 and 10 where it is there at 1, and no single points
    beside curves, which the table at a run's end has.
    """
    first = {
        name: curve
        for name, curve in curves.items()
        if not (_further(name) and f"{name[: -len(_further(name))]}1" in curves)
    }
    long = {name: curve for name, curve in first.items() if len(curve[0]) > 1}
    return long or first


def _further(name: str) -> str:
    """ "5" or "10" of a recall at as many, else nothing."""
    return next((number for number in ("5", "10") if name.endswith(f"_at_{number}")), "")
