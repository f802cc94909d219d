"""The page of one run: what it was, curves, numbers, samples, warnings, and its whole config."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from alignlab.reports.curves import legible, panels
from alignlab.reports.lines import lines
from alignlab.reports.page import Block, Grid, Listing, Note, Page, Pictures, Section, Shot
from alignlab.reports.runs.reading import RunRecord, table_of

LARGEST_PICTURE = 4_000_000  # bytes of a file that goes into the page
LONGEST = 600  # letters of a cell


def page_of(run: RunRecord) -> Page:
    """The report of a run, as far as it has come."""
    result = run.result
    sections = [Section("What it was", _what(run))]
    if pictures := _curves(run):
        sections.append(Section("Curves", [Pictures(pictures)]))
    if result is not None and result.metrics:
        rows = [[name, f"{value:.5g}"] for name, value in sorted(result.metrics.items())]
        evaluated = [row for row in rows if row[0].startswith("val/")]
        others = [row for row in rows if not row[0].startswith("val/")]
        blocks: list[Block] = (
            [Grid(["on held-out data, at the last step", "value"], evaluated, kind="numbers")] if evaluated else []
        )
        sections.append(Section("Numbers", [*blocks, *([Grid(["metric", "value"], others)] if others else [])]))
    if samples := _samples(run.folder / "samples"):
        sections.append(Section("Samples", samples))
    said = [*(result.notes if result else []), *run.warnings]
    if said:
        sections.append(Section("Notes and warnings", [Note(text, warns=True) for text in dict.fromkeys(said)]))
    text = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    sections.append(Section("Everything that was set", [Listing("config.yaml", text)]))
    return Page(str(run.config.get("run_name") or run.name), _lead(run), sections)


def _lead(run: RunRecord) -> str:
    result, when = run.result, datetime.fromtimestamp((run.folder / "config.yaml").stat().st_mtime, UTC)
    begun = f"{run.name}, begun {when:%Y-%m-%d %H:%M} UTC"
    if result is None:
        return f"{begun}; there is no result yet"
    reason = f" ({result.reason})" if result.reason else ""
    return f"{begun}: {result.status}{reason} after {result.steps:,} steps, {result.seconds:,.0f} s"


def _what(run: RunRecord) -> list[Block]:
    settings, result = run.settings, run.result
    rows = [
        ["model", _short_target(settings.get("model._target_"))],
        ["net", _short_target(settings.get("model.net._target_"))],
        [
            "data",
            _short_target(settings.get("data.source") or settings.get("data.rows") or settings.get("data._target_")),
        ],
        ["optimizer", f"{_short_target(settings.get('optim._target_'))}, lr {settings.get('optim.lr')}"],
        ["batch of a process", str(settings.get("data.batch_size"))],
        ["precision", str(settings.get("trainer.precision"))],
        ["seed", str(settings.get("seed"))],
    ]
    if result is not None:
        rows += [
            ["processes", str(result.world_size)],
            ["samples a second", "-" if result.samples_per_second is None else f"{result.samples_per_second:,.4g}"],
            ["memory at its most", f"{result.peak_memory_bytes / 1e9:.2f} GB"],
            ["revision", str(result.git_revision or "-")],
            ["versions", ", ".join(f"{name} {number}" for name, number in result.versions.items())],
        ]
    command = " ".join(["python train.py", *run.command])
    return [Listing("command", command, opened=True), Grid(["setting", "value"], rows, kind="facts")]


def _curves(run: RunRecord) -> list[Any]:
    """What a picture has room for, of each kind; held-out values of what training has too are dashed, in its colour."""
    pictures = []
    for title, all_curves in panels(run.rows).items():
        curves = legible(all_curves)
        plain = list(dict.fromkeys(name.partition("/")[2] for name in curves))
        own = [plain.index(name.partition("/")[2]) for name in curves]
        dashed = {name for name in curves if f"train/{name.removeprefix('val/')}" in curves and name.startswith("val/")}
        if title != "other" and (picture := lines(curves, title, own, dashed)):
            pictures.append(picture)
    return pictures


def _samples(folder: Path) -> list[Block]:
    blocks: list[Block] = []
    for file in sorted(folder.glob("*.jsonl")):
        if rows := table_of(file):
            keys = list(dict.fromkeys(key for row in rows for key in row))
            blocks.append(Note(file.name))
            blocks.append(Grid(keys, [[_cell(row.get(key)) for key in keys] for row in rows], kind="texts"))
    for file in sorted(folder.glob("*.png")):
        if file.name != "curves.png" and file.stat().st_size <= LARGEST_PICTURE:
            data = base64.b64encode(file.read_bytes()).decode()
            blocks.append(Shot(f"data:image/png;base64,{data}", file.name))
    return blocks


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict) and "response" in value:  # of a table of responses
        numbers = ", ".join(f"{k} {v:.2f}" for k, v in value.items() if isinstance(v, float))
        return _cut(f"{value['response']} ({numbers})")
    return _cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _short_target(target: Any) -> str:
    return str(target or "-").rpartition(".")[2]
