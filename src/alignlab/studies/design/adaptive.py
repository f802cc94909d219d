"""Points by Optuna's TPE, which looks at the trials so far: for exploitation, after a space has been explored."""

from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.studies.design.declaration import Study
from alignlab.studies.design.parameters import Parameter
from alignlab.studies.trials import Trial


def proposed(study: Study, trials: Mapping[int, Trial], numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Values for the next trials: number -> key -> value.

    All that has ended is told anew, so that a study that is gone on with needs no storage; scientific settings are
    taken in turn, as by the other samplers, and looked at by themselves.

    Raises:
        ValueError: Optuna isn't there.
    """
    try:
        import optuna
    except ImportError:
        raise ValueError("study: sampler=tpe needs Optuna: pip install 'alignlab[studies]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings, chosen = study.settings, {}
    there = [study.metric.loss(t.value) for t in trials.values() if t.status == "ok" and t.value is not None]
    worst = max(there, default=0.0)  # what an infeasible trial counts as, or TPE would go there again and again
    for number in numbers:
        setting = settings[number % len(settings)]
        sampler = optuna.samplers.TPESampler(seed=study.seed + number)
        asked = optuna.create_study(direction="minimize", sampler=sampler)
        for trial in trials.values():
            alike = all(trial.point.get(key) == value for key, value in setting.items())
            if alike and trial.ended:
                asked.add_trial(_told(optuna, study, trial, worst))
        suggested, point = asked.ask(), dict(setting)
        for each in study.searched:
            if each.holds({**study.fixed, **point}):
                point[each.key] = each.at(suggested.suggest_float(_name(each), 0.0, 1.0 - 1e-9))
        chosen[number] = point
    return chosen


def _told(optuna: Any, study: Study, trial: Trial, worst: float) -> Any:
    there = [each for each in study.searched if each.key in trial.point and each.holds({**study.fixed, **trial.point})]
    places = {_name(each): min(max(_place(each, trial.point[each.key]), 0.0), 1.0 - 1e-9) for each in there}
    spread = optuna.distributions.FloatDistribution(0.0, 1.0 - 1e-9)
    good = trial.status == "ok" and trial.value is not None
    value = study.metric.loss(trial.value) if good else worst
    return optuna.trial.create_trial(params=places, distributions=dict.fromkeys(places, spread), value=value)


def _place(each: Parameter, value: Any) -> float:
    if each.is_range:
        return each.place(value)
    return (list(each.values).index(value) + 0.5) / len(each.values)


def _name(each: Parameter) -> str:
    return " ".join([each.key, *(f"{key}={value}" for key, value in each.when.items())])
