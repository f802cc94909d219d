"""What the curves of a study's runs say together, and the study to run next."""

from collections import Counter
from typing import Any

import yaml

from alignlab.studies.curve_findings import best_place, findings_of
from alignlab.studies.findings import Finding
from alignlab.studies.reading.study_data import StudyData

TOP = 5  # trials whose curves matter
SAY = {
    "overfitting": "get worse on held-out data after their best: regularise more, or take the best checkpoint",
    "noisy": "jump from one validation to the next: validate on more data, decay the rate further, or average weights",
    "still_improving": "still improve at the end: more steps would help, with the decay stretched along",
    "saturated": "were done by half of the steps: shorter trials would have told the same",
    "memorised": "know their training data by heart while the held-out metric hasn't risen: no reason to shorten them; "
    "more steps may bring it (grokking), with weight decay above all",
    "grokked": "rose on held-out data long after they knew their training data (grokking): shorter ones would have "
    "shown nothing",
    "train_loss_rising": "have a training loss that rises: a rate too high, a loss that joins on the way, or a bug",
}


def of_trials(data: StudyData) -> dict[int, list[str]]:
    """Number of a trial -> codes of what its curves say."""
    told = {}
    for trial in data.trials:
        if trial.trial in data.curves:
            codes = findings_of(data.curves[trial.trial], data.train.get(trial.trial), data.metric.mode)
            seen = data.grokking.get(trial.trial)
            if seen is not None and seen.wants_steps:  # what stands still isn't done
                codes = [code for code in codes if code != "saturated"] + [seen.state]
            if codes:
                told[trial.trial] = codes
    return told


def of_the_best(data: StudyData, told: dict[int, list[str]]) -> list[Finding]:
    """What most of the best trials have in common, and advice on the number of steps."""
    best = [trial.trial for trial in data.feasible[:TOP] if trial.trial in data.curves]
    counts = Counter(code for number in best for code in told.get(number, ()))
    said = [
        Finding(code, f"{count} of the {len(best)} best trials {SAY[code]}.", details={"trials": count})
        for code, count in counts.items()
        if count > len(best) / 2
    ]
    places = best_places(data)
    if len(places) >= 4:
        early, late = (sum(test(p) for p in places) / len(places) for test in (lambda p: p < 0.1, lambda p: p > 0.75))
        if early > 0.75 and not counts["memorised"] + counts["grokked"] > len(best) / 2:
            text = "Most trials are at their best in the first tenth of their steps: far fewer steps would do."
            said.append(Finding("max_steps_too_many", text, "trainer.max_steps", {"share": early}))
        elif late > 0.75 and "saturated" not in counts:
            text = (
                "Most trials are at their best in the last quarter of their steps: train longer, and tune the decay "
                "again (a linear one keeps its length, a cosine is stretched)."
            )
            said.append(Finding("max_steps_too_few", text, "trainer.max_steps", {"share": late}))
    return said


def best_places(data: StudyData) -> list[float]:
    """When each feasible trial was best, as shares of its steps."""
    places = (best_place(data.curves[t.trial], data.metric.mode) for t in data.feasible if t.trial in data.curves)
    return [each for each in places if each is not None]


def next_study(data: StudyData, findings: list[Finding]) -> str:
    """The file of the study to run next: ranges moved to where the best values are, values that lost left out."""
    moved = {f.parameter: f.details for f in findings if f.code == "boundary"}
    unstable = {f.parameter: f.details for f in findings if f.code in ("infeasible_region", "unstable_beyond")}
    decided = {f.parameter: f.details["best"] for f in findings if f.code == "better"}
    given: dict[str, Any] = {"goal": data.goal or "go on", "metric": _metric(data)}
    fixed = {**data.fixed, **decided}
    blocks: dict[str, Any] = {"scientific": {}, "nuisance": {}, "conditional": []}
    for each in data.parameters:
        if each.key in decided:
            continue
        about: Any = list(each.values)
        if each.is_range:
            low, high = each.low, each.high
            if each.key in moved:
                low, high = moved[each.key]["low"], moved[each.key]["high"]
            elif each.key in unstable:
                limit = unstable[each.key]["limit"]
                low, high = (limit, high) if unstable[each.key]["side"] == "low" else (low, limit)
            about = {"low": low, "high": high, "scale": each.scale} | ({"integer": True} if each.integer else {})
        if each.when:
            blocks["conditional"].append({"when": dict(each.when), each.role: {each.key: about}})
        else:
            blocks[each.role][each.key] = about
    given |= {name: block for name, block in blocks.items() if block} | {"fixed": fixed}
    study = data.study
    given |= {"sampler": study.sampler if study else "halton", "seed": (study.seed if study else 0) + 1}
    given |= {"trials": study.trials if study else max(16, len(data.trials))}
    if study and study.infeasible:
        given["infeasible"] = {name: dict(limit) for name, limit in study.infeasible.items()}
    head = "# @package hydra.sweeper\ndefaults:\n  - override /hydra/sweeper@_global_.hydra.sweeper: study\n"
    return head + yaml.safe_dump(given, sort_keys=False, allow_unicode=True, width=120)


def _metric(data: StudyData) -> dict[str, Any]:
    metric = {"name": data.metric.name, "mode": data.metric.mode, "reduce": data.metric.reduce}
    return metric | ({"step": data.metric.step} if data.metric.step is not None else {})
