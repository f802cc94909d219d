"""Reads a study's directory, or that of any sweep that Hydra has run, into what a report is made of."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignlab.studies import trials
from alignlab.studies.design.declaration import Metric, Study
from alignlab.studies.design.parameters import Parameter
from alignlab.studies.grokking import grokking
from alignlab.studies.outcome import outcome
from alignlab.studies.reading import multirun
from alignlab.studies.reading.study_data import StudyData
from alignlab.studies.reading.tables import Logged, logged
from alignlab.studies.trials import Trial

TRAIN = ("train/loss", "train_loss", "loss/train", "loss")


def read(directory: Path, metric: str | None = None, mode: str | None = None) -> StudyData:
    """A study, or a sweep of anybody's.

    Args:
        metric: to read instead of what the study declares: its trials were chosen without looking at it.
        mode: min or max; None: as declared, else by the metric's name.
    Raises:
        ValueError: one line: there is nothing to read, or nobody says what is compared.
    """
    if not directory.is_dir():
        raise ValueError(f"{directory} is no directory")
    return _own(directory, metric, mode) if (directory / trials.STUDY).exists() else _any(directory, metric, mode)


def _own(directory: Path, metric: str | None, mode: str | None) -> StudyData:
    told = json.loads((directory / trials.STUDY).read_text(encoding="utf-8"))
    try:
        parameters = tuple(_parameter(each) for each in told["parameters"])
        declared = Metric(**told["metric"])
        study = Study(
            told["goal"],
            declared if metric is None else Metric(metric, mode or _mode(metric)),
            parameters,
            told["fixed"],
            told["sampler"],
            told["seed"],
            told["trials"],
            told["infeasible"],
            tuple(told["words"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{directory / trials.STUDY} isn't what a study writes ({error})") from None
    rows = [trial for _, trial in sorted(trials.read(directory).items()) if trial.ended]
    if not rows:
        raise ValueError(f"{directory} holds no trial that has ended yet")
    data = StudyData(directory, study.metric, list(study.parameters), [], fixed=dict(study.fixed), study=study)
    data.goal, data.program = study.goal, list(told.get("program") or [])
    data.fixed |= dict(word.split("=", 1) for word in study.words if "=" in word)
    for trial in rows:
        told_by_run = logged(directory / trial.directory) if trial.directory else Logged()
        if metric is not None and trial.status == "ok":
            trial = _again(study, trial, told_by_run)
        take(data, trial, told_by_run)
    if metric is not None and not data.feasible:
        names = sorted({name for trial in rows for name in trial.metrics})
        raise ValueError(f"no trial has logged {metric}{_nearest(metric, names)}")
    if study.sampler == "tpe":
        data.notes.append(
            "The points were chosen by TPE, which looks at the metric: they crowd where it was good, so that bounds, "
            "comparisons and other metrics are read with care. Explore with halton."
        )
    return data


def _again(study: Study, trial: Trial, told: Logged) -> Trial:
    """A trial by another metric."""
    new = outcome(study, trial.trial, trial.point, trial.status, trial.reason, told)
    new.steps, new.seconds, new.directory = trial.steps, trial.seconds, trial.directory
    return new


def _any(directory: Path, metric: str | None, mode: str | None) -> StudyData:
    sweep = multirun.read(directory)
    names = sorted({name for _, _, told in sweep.runs for name in told.names})
    if metric is None:
        metric = sweep.objective if sweep.objective in names else None
    if metric is None or metric not in names:
        if not names:
            raise ValueError(f"{directory}: {len(sweep.runs)} runs, and none has left numbers in a table or a result")
        asked = "say which one is compared with --metric" if metric is None else f"no run has logged {metric}"
        guess = _nearest(metric or "val/loss", names)
        raise ValueError(f"{asked}{guess}")
    chosen = Metric(metric, mode or _mode(metric))
    varied, fixed = multirun.varied([point for _, point, _ in sweep.runs])
    data = StudyData(directory, chosen, varied, [], fixed=fixed, notes=list(sweep.notes))
    for number, (folder, point, told) in enumerate(sweep.runs):
        value = told.value(chosen)
        status, reason = multirun.end_of(folder, value)
        trial = Trial(number, {key: v for key, v in point.items() if key not in fixed}, status, reason)
        trial.value, trial.directory, trial.metrics = value, str(folder.relative_to(directory)), told.last
        trial.steps = int(max((curve[-1][0] for curve in told.curves.values() if curve), default=0))
        take(data, trial, told)
    data.goal = f"A sweep of {len(data.trials)} runs"
    if not varied:
        data.notes.append("All runs have the same settings, as far as their overrides say.")
    return data


def take(data: StudyData, trial: Trial, told: Logged) -> None:
    """Adds a trial and the curves that findings look at."""
    data.trials.append(trial)
    if curve := told.curves.get(data.metric.name):
        data.curves[trial.trial] = curve
    if name := next((name for name in TRAIN if told.curves.get(name)), None):
        data.train[trial.trial] = told.curves[name]
    if (seen := grokking(told)) is not None:
        data.grokking[trial.trial] = seen
    for name in ("val/kl", "objective/kl", "val/score", "objective/score"):
        if told.curves.get(name):
            trial.metrics.setdefault(name, told.curves[name][-1][1])


def _parameter(given: Mapping[str, Any]) -> Parameter:
    known = {key: value for key, value in given.items() if value is not None}
    return Parameter(**(known | {"values": tuple(given.get("values") or ())}))


def _mode(metric: str) -> str:
    """Whether small or large is good, by the name."""
    good = ("acc", "recall", "score", "reward", "auc", "f1", "precision", "map", "bleu", "rouge", "win", "margin")
    return "max" if any(word in metric.lower() for word in good) else "min"


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"{f'; did you mean {close[0]}?' if close else '.'} There are: {', '.join(known)}"
