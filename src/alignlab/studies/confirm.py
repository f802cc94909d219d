"""Whether a study's best settings hold: incumbent and baseline again with other seeds, and adopt, don't, or not
distinguishable.
"""

import json
import math
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignlab.files.writing import write_text
from alignlab.launch.environment import of_one_process
from alignlab.launch.sweep import Sweep, quoted
from alignlab.studies.design.declaration import Metric
from alignlab.studies.reading.study_data import StudyData
from alignlab.studies.reading.tables import logged
from alignlab.studies.trials import Trial

# Student's t, two-sided 95 %, by degrees of freedom; from 30 on 1.96 + 2.4 / f is right to three digits.
_T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131]
_T += [2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045]
FIRST_SEED = 100  # none that the study's trials have had


@dataclass(frozen=True)
class Verdict:
    """What the runs with other seeds say.

    Attributes:
        says: adopt, don't, or not distinguishable.
        difference: of the incumbent from the baseline, in the metric.
        low, high: its 95 % interval.
        paired: whether runs with the same seed were compared.
    """

    says: str
    difference: float
    low: float
    high: float
    paired: bool

    def text(self, metric: Metric) -> str:
        """A line for people."""
        how = "by seed" if self.paired else "Welch"
        span = f"{self.difference:+.4g} in {metric.name} (95 %, {how}: {self.low:+.4g} to {self.high:+.4g})"
        return f"{self.says}: the incumbent differs from the baseline by {span}; {metric.mode} is good."


def judged(incumbent: Sequence[float], baseline: Sequence[float], metric: Metric) -> Verdict:
    """Compares values of runs with the same seeds in the same places; nan for a run without one.

    By pairs where all seeds have both, with t; else by Welch's t. One that has fewer than two values can't be told.
    """
    a, b = np.array(incumbent, dtype=float), np.array(baseline, dtype=float)
    paired = len(a) == len(b) and bool(np.isfinite(a).all() and np.isfinite(b).all())
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if min(len(a), len(b)) < 2:
        gap = float(a.mean() - b.mean()) if len(a) and len(b) else math.nan
        return Verdict("not distinguishable", gap, -math.inf, math.inf, False)
    gap = float(a.mean() - b.mean())
    if paired:
        error, freedom = float((a - b).std(ddof=1) / math.sqrt(len(a))), len(a) - 1
    else:
        parts = [float(each.var(ddof=1) / len(each)) for each in (a, b)]
        error = math.sqrt(sum(parts))
        below = sum(part**2 / (len(each) - 1) for part, each in zip(parts, (a, b), strict=True))
        freedom = max(1, math.floor(sum(parts) ** 2 / below)) if below > 0 else len(a) + len(b) - 2
    reach = (_T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.4 / freedom) * error
    low, high = gap - reach, gap + reach
    if low <= 0 <= high:
        return Verdict("not distinguishable", gap, low, high, paired)
    return Verdict("adopt" if metric.loss(gap) < 0 else "don't", gap, low, high, paired)


def baseline_of(data: StudyData, number: int | None) -> Trial:
    """What the best trial is compared with: the given trial, or the best one with another scientific setting, or the
    middling one.

    Raises:
        ValueError: there is no such trial, or it has no value.
    """
    good = data.feasible
    if len(good) < 2:
        raise ValueError(f"{len(good)} trials have a value; two are needed to compare")
    if number is not None:
        chosen = next((trial for trial in good if trial.trial == number), None)
        if chosen is None:
            raise ValueError(f"trial {number} has no value; those that have: {sorted(t.trial for t in good)[:40]}")
        return chosen
    keys = [each.key for each in data.parameters if each.role == "scientific"]
    other = [t for t in good if any(t.point.get(k) != good[0].point.get(k) for k in keys)]
    return other[0] if other else good[len(good) // 2]


def confirm(data: StudyData, n: int, baseline: int | None = None, extra: Sequence[str] = ()) -> Verdict:
    """Runs the best trial and the baseline with n seeds each, below `confirm/`, and compares them.

    Runs that are there already are kept; the same command goes on.

    Args:
        baseline: number of the trial; None: see `baseline_of`.
        extra: words for every run, `hydra.launcher.n_jobs=2`.
    Raises:
        ValueError: the study isn't this project's, a sweep was refused, or there is nothing to compare.
    """
    if data.study is None or not data.program:
        raise ValueError(f"{data.directory} is no study of this project: there is no program to run its trials with")
    if n < 2:
        raise ValueError(f"n is {n}; two seeds are the least that tell a spread")
    other = baseline_of(data, baseline)
    seeds = ",".join(str(FIRST_SEED + each) for each in range(n))
    values = []
    for name, trial in (("incumbent", data.feasible[0]), ("baseline", other)):
        folder = data.directory / "confirm" / f"{name}_{trial.trial}"
        words = [word for word in data.study.overrides(trial.point) if not word.startswith("seed=")]
        print(f"{name}: trial {trial.trial}, {n} seeds, in {folder}", flush=True)
        place = [f"hydra.sweep.dir={quoted(folder)}", "hydra.launcher.resume=true"]
        command = [*data.program, "-m", *words, f"seed={seeds}", *place, *extra]
        code = subprocess.run(command, env=of_one_process(), check=False).returncode
        rows = Sweep.read(folder).rows
        if code not in (0, 1) or not rows:
            raise ValueError(f"the runs of {name} ended with code {code}; what is above says why")
        told = [logged(Path(rows[each].directory)).value(data.metric) if each in rows else None for each in range(n)]
        failed = [rows[each].status != "ok" if each in rows else True for each in range(n)]
        values.append([math.nan if v is None or bad else v for v, bad in zip(told, failed, strict=True)])
    said = judged(*values, data.metric)
    _write(data, said, other, values)
    return said


def _write(data: StudyData, said: Verdict, other: Trial, values: list[list[float]]) -> None:
    told = {
        "verdict": said.says,
        "difference": said.difference,
        "low": said.low,
        "high": said.high,
        "paired": said.paired,
        "metric": data.metric.name,
        "incumbent": {"trial": data.feasible[0].trial, "values": values[0]},
        "baseline": {"trial": other.trial, "values": values[1]},
    }
    text = json.dumps(told, indent=2).replace("NaN", "null").replace("-Infinity", "null").replace("Infinity", "null")
    write_text(data.directory / "confirm" / "confirm.json", text + "\n")
