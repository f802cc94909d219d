"""The report of a study: report.html in one piece, report.json with coded findings, pictures, and the next study."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignlab.files.writing import write_text
from alignlab.reports.page import Block, Grid, Note, Page, Section, render
from alignlab.studies import advice
from alignlab.studies.findings import Finding, findings
from alignlab.studies.outcome import kind
from alignlab.studies.reading.study_data import StudyData
from alignlab.studies.showing import drawings
from alignlab.studies.showing.figures import short
from alignlab.studies.trials import Trial

FOLDER = "report"
ROWS = 20  # trials in the table of the page; all are in report.json
_WARN = {"many_infeasible", "unstable_beyond", "train_loss_rising", "too_few_trials"}


def write(data: StudyData, folder: Path | None = None, pictures: bool = True) -> tuple[Path, list[Finding]]:
    """Writes the report; returns the page and what it says.

    Args:
        folder: default: `report` in the study's directory.
    """
    folder = folder or data.directory / FOLDER
    told, codes = findings(data), advice.of_trials(data)
    told += advice.of_the_best(data, codes)
    name = f"{data.directory.name}_next".replace(".", "_").replace(" ", "_")
    following = folder / "study" / f"{name}.yaml"
    write_text(following, advice.next_study(data, told))
    write_text(folder / "next_study.yaml", advice.next_study(data, told))
    page = _page(data, told, codes, folder, following)
    write_text(folder / "report.html", render(page))
    write_text(folder / "report.json", json.dumps(_json(data, told, codes), indent=2, ensure_ascii=False) + "\n")
    if pictures:
        from alignlab.studies.showing.pictures import draw

        draw(data, folder)
    return folder / "report.html", told


def verdict(data: StudyData, told: list[Finding]) -> str:
    """What the study says, in a sentence or two."""
    compared = [f for f in told if f.code in ("better", "not_distinguishable")]
    roles = {each.key: each.role for each in data.parameters}
    scientific = [f for f in compared if roles.get(f.parameter) == "scientific"] or compared
    if scientific:
        return " ".join(each.text for each in scientific)
    if not data.feasible:
        return "No trial has a value: nothing can be said yet."
    if any(f.code == "boundary" for f in told):
        return "The best values lie at the bounds of what was searched: go on with the ranges below."
    best = data.feasible[0]
    return f"Trial {best.trial} is best, {data.metric.name} {best.value:.4g}, and no bound of the space is in the way."


def _page(data: StudyData, told: list[Finding], codes: dict[int, list[str]], folder: Path, following: Path) -> Page:
    count = f"{len(data.trials)} trials, {len(data.infeasible)} of them without a value"
    lead = f"{data.goal} {count}; compared by {data.metric.name} ({data.metric.mode}, {data.metric.reduce})."
    sections = [
        Section("Verdict", _verdict(data, told)),
        Section("What to do next", _next(data, told, following)),
        Section("Each parameter", [drawings.axis(data, each) for each in data.parameters]),
    ]
    isolated = [p for p in data.parameters if p.role == "scientific"]
    more = [drawings.isolation(data, each) for each in isolated]
    sections.append(Section("The question alone", [each for each in more if each is not None]))
    whole = [drawings.best_of_n(data), drawings.training(data), drawings.best_steps(data)]
    sections.append(Section("Enough trials, enough steps?", [each for each in whole if each is not None]))
    if (figure := drawings.reward_against_kl(data)) is not None:
        sections.append(Section("Reward against KL", [figure]))
    sections.append(Section("Trials", _trials(data, codes)))
    sections.append(Section("What stayed as it is", _fixed(data)))
    return Page(f"Study {data.directory.name}", lead, [each for each in sections if each.blocks])


def _verdict(data: StudyData, told: list[Finding]) -> list[Block]:
    blocks: list[Block] = [Note(verdict(data, told))]
    compared = {f.text for f in told if f.code in ("better", "not_distinguishable")}
    blocks += [Note(f.text, warns=f.code in _WARN) for f in told if f.text not in compared]
    blocks += [Note(text, warns=True) for text in data.notes]
    if (note := drawings.contrastive_note(data)) is not None:
        blocks.append(Note(note, warns=True))
    rows = [_row(f, value, against) for f in told if "against" in f.details for value, against in _pairs(f)]
    if rows:
        blocks.append(Grid(["best value", "against", "difference", "95 % interval", "p", "rests on"], rows))
    return blocks


def _pairs(finding: Finding) -> list[tuple[str, dict[str, Any]]]:
    return list(finding.details["against"].items())


def _row(finding: Finding, value: str, against: dict[str, Any]) -> list[str]:
    span = f"{short(against['low'])} to {short(against['high'])}"
    name = f"{finding.parameter}={finding.details['best']}"
    return [name, value, short(against["difference"]), span, short(against["p"]), str(against["pairs"])]


def _next(data: StudyData, told: list[Finding], following: Path) -> list[Block]:
    blocks: list[Block] = []
    if data.study is not None:
        folder = following.parent.parent
        command = f"python train.py -m --config-dir {folder} study={following.stem}"
        blocks.append(Note(f"The study to run next, with what was found taken in: {command}"))
        blocks.append(Note(f"Before its best settings are adopted: alignlab study confirm {data.directory}"))
    else:
        blocks.append(Note(f"A study with these parameters, moved by what was found, is in {following.name}."))
    if data.feasible:
        best = data.feasible[0]
        words = data.study.overrides(best.point) if data.study else [f"{k}={v}" for k, v in best.point.items()]
        text = " ".join(words)
        blocks.append(Note(f"The best trial again: python train.py {text}" if data.study else f"The best run: {text}"))
    return blocks


def _trials(data: StudyData, codes: dict[int, list[str]]) -> list[Block]:
    keys = [each for each in dict.fromkeys(p.key for p in data.parameters)]
    head = ["trial", data.metric.name, *keys, "steps", "curves say"]
    rows = [
        [
            str(trial.trial),
            f"{trial.value:.4g}",
            *(_shown(trial.point.get(key, "")) for key in keys),
            str(trial.steps),
            ", ".join(codes.get(trial.trial, [])).replace("_", " "),
        ]
        for trial in data.feasible[:ROWS]
    ]
    blocks: list[Block] = [Grid(head, rows)] if rows else []
    if len(data.feasible) > ROWS:
        blocks.append(Note(f"The best {ROWS} of {len(data.feasible)}; all are in report.json."))
    if bad := data.infeasible[:ROWS]:
        lost = [
            [str(t.trial), kind(t), *(_shown(t.point.get(key, "")) for key in keys), (t.reason or "")[:90]] for t in bad
        ]
        blocks.append(Grid(["trial", "why", *keys, "reason"], lost))
    return blocks


def _fixed(data: StudyData) -> list[Block]:
    if not data.fixed:
        return []
    rows = [[str(key), _shown(value)] for key, value in data.fixed.items()]
    note = "Every conclusion holds for these values only; with others the best settings may be others."
    return [Note(note), Grid(["key", "value"], rows)]


def _shown(value: Any) -> str:
    return short(value) if isinstance(value, float) else str(value)


def _json(data: StudyData, told: list[Finding], codes: dict[int, list[str]]) -> dict[str, Any]:
    return {
        "directory": str(data.directory),
        "goal": data.goal,
        "metric": asdict(data.metric),
        "verdict": verdict(data, told),
        "findings": [_finite(asdict(each)) for each in told],
        "notes": data.notes,
        "best": _of(data.feasible[0], codes) if data.feasible else None,
        "fixed": _finite(dict(data.fixed)),
        "trials": [_of(trial, codes) for trial in data.trials],
    }


def _of(trial: Trial, codes: dict[int, list[str]]) -> dict[str, Any]:
    told = asdict(trial) | {"curves": codes.get(trial.trial, [])}
    return _finite(told | ({} if trial.status == "ok" else {"kind": kind(trial)}))


def _finite(value: Any) -> Any:
    """Numbers that JSON hasn't become null."""
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value
