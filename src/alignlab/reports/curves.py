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
