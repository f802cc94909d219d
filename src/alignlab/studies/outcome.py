"""What became of a trial, from what its run has left."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.studies.design.declaration import Metric, Study
from alignlab.studies.reading.tables import Logged
from alignlab.studies.trials import Trial

# Words by which a reason tells its kind, for the report: what to do about each is something else.
KINDS = (
    ("diverged", ("nan", "not finite", "isn't finite", "inf", "diverged")),
    ("out of memory", ("out of memory", "outofmemory", "memoryerror", "sigkill", "cannot allocate", "oom")),
    ("killed", ("killed by", "sigterm", "exit code -")),
)


def outcome(
    study: Study, number: int, point: Mapping[str, Any], status: str, reason: str | None, told: Logged
) -> Trial:
    """The row of a trial whose run has ended.

    Args:
        status: of its result.json: ok, diverged, failed or interrupted.
        told: what it has logged.
    """
    trial = Trial(number, dict(point), status, reason, told.value(study.metric))
    trial.metrics = {name: value for name, value in told.last.items() if math.isfinite(value)}
    if status == "diverged":
        trial.status, trial.reason = "infeasible", f"diverged: {reason}" if reason else "diverged"
    elif status == "ok":
        if trial.value is not None and not math.isfinite(trial.value):
            trial.status, trial.reason, trial.value = "infeasible", f"{study.metric.name} is {trial.value}", None
        elif beyond := _beyond(study, told):
            trial.status, trial.reason = "infeasible", beyond
    return trial


def kind(trial: Trial) -> str:
    """Why a trial is infeasible, in a word or two."""
    reason = (trial.reason or "").lower()
    if trial.status == "infeasible" and not reason.startswith("diverged"):
        return "beyond the limit"
    return next((name for name, words in KINDS if any(word in reason for word in words)), "crashed")


def refuse_unlogged(metric: Metric, told: Logged) -> None:
    """Raises ValueError, one line, where a run that ended well has never logged the metric."""
    if told.value(metric) is not None or metric.name in told.names:
        return
    raise ValueError(f"metric {metric.name} was never logged{_nearest(metric.name, told.names)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"; did you mean {close[0]}?" if close else ""
    return f"{guess} There are: {', '.join(known)}" if known else "; the run has logged nothing at all"


def _beyond(study: Study, told: Logged) -> str | None:
    for name, limit in study.infeasible.items():
        value = told.last.get(name)
        if value is None and told.curves.get(name):
            value = told.curves[name][-1][1]
        if value is None:
            continue
        for side, far in limit.items():
            if (value > float(far)) if side == "above" else (value < float(far)):
                return f"{name} is {value:.4g}, {side} {float(far):g}"
    return None
