"""The report of a ladder: report.html in one piece, report.json, a picture for each task."""

import json
import math
from pathlib import Path

from alignlab.files.writing import write_text
from alignlab.reports.page import Block, Grid, Note, Page, Section, render
from alignlab.scaling.findings import Found, TaskFound, as_json
from alignlab.scaling.flips import Flips
from alignlab.scaling.reading.ladder import Ladder
from alignlab.scaling.showing import drawings
from alignlab.studies.showing.figures import short

LISTED = 40  # lines of what was left out
FLIPPED = 25  # items that changed sides


def write(ladder: Ladder, told: list[TaskFound], folder: Path, pictures: bool = True) -> Path:
    """Writes the report; returns the page."""
    text = json.dumps(as_json(ladder, told), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / "report.json", text + "\n")
    write_text(folder / "report.html", render(_page(ladder, told)))
    if pictures:
        from alignlab.scaling.showing.pictures import draw

        draw(ladder, told, folder)
    return folder / "report.html"


def _page(ladder: Ladder, told: list[TaskFound]) -> Page:
    sizes = [x for _, x in ladder.models]
    lead = f"{len(set(sizes))} sizes, {short(min(sizes))} to {short(max(sizes))} {ladder.title}."
    sections = [_verdicts(told)] if len(told) > 1 else []
    for each in told:
        sections.append(Section(each.task, _task(each, ladder.title)))
    models = [[name, short(x)] for name, x in ladder.models]
    sections.append(Section("Models", [Grid(["model", ladder.title], models)]))
    if ladder.problems:
        lines: list[Block] = [Note(line, warns=True) for line in ladder.problems[:LISTED]]
        if len(ladder.problems) > LISTED:
            lines.append(Note(f"{len(ladder.problems) - LISTED} more are in report.json."))
        sections.append(Section("What was left out", lines))
    return Page("Over sizes", lead, sections)


def _verdicts(told: list[TaskFound]) -> Section:
    rows = [[each.task, each.verdict.code.replace("_", " "), _metrics(each)] for each in told]
    return Section("Verdicts", [Grid(["task", "verdict", "metrics"], rows, kind="facts")])


def _metrics(told: TaskFound) -> str:
    return ", ".join(f"{each.curve.metric.name} {each.shape.name.replace('_', ' ')}" for each in told.curves)


def _task(told: TaskFound, title: str) -> list[Block]:
    blocks: list[Block] = [Note(f"{told.verdict.code.replace('_', ' ')}. {told.verdict.text}", warns=True)]
    blocks += [Note(f"Next: {line}") for line in told.verdict.then]
    head = ["metric", "shape", "resamples", "law", "largest foretold", "linearity", "breakthroughness"]
    blocks.append(Grid(head, [_row(each) for each in told.curves]))
    blocks += [drawings.curve(each, title) for each in told.curves]
    if told.composite is not None:
        blocks.append(drawings.parts(told.composite, title))
    return blocks if told.flips is None else blocks + _flips(told.flips)


def _flips(flips: Flips) -> list[Block]:
    """Who changed sides, from size to size and item by item."""
    about = f"Items that change sides ({flips.metric.replace('_', ' ')}, {flips.count} items), and how many would if "
    blocks: list[Block] = [Note(f"{about}as many right ones were drawn anew at each size.")]
    head = ["from", "to", "right", "wrong to right", "drawn anew", "right to wrong", "drawn anew", "95 %"]
    rows = [
        [
            *(each.smaller, each.larger, f"{each.right_before} to {each.right_then}"),
            *(str(each.gained), f"{each.expected_gained:.1f}", str(each.lost), f"{each.expected_lost:.1f}"),
            f"{each.low} to {each.high}",
        ]
        for each in flips.changes
    ]
    blocks.append(Grid(head, rows))
    if flips.items:
        shown = [[name, *("right" if side else "-" for side in sides)] for name, sides in flips.items[:FLIPPED]]
        blocks.append(Note("Items that changed, those that were lost most often first."))
        blocks.append(Grid(["item", *flips.names], shown))
        if len(flips.items) > FLIPPED:
            blocks.append(Note(f"{len(flips.items) - FLIPPED} more that changed are in report.json."))
    return blocks


def _row(found: Found) -> list[str]:
    left, both = found.left_out, found.breakthrough
    foretold = "-"
    if left is not None:
        span = f"{short(left.expected.low)} to {short(left.expected.high)}"
        foretold = f"{span}; is {short(left.actual)}{'' if left.inside else ' (outside)'}"
    numbers = ["-", "-"]
    if both is not None:
        numbers = [
            _with_interval(both.linearity, both.linearity_interval),
            _with_interval(both.breakthroughness, both.breakthroughness_interval),
        ]
    sure = f"{found.shape.sure:.0%}" if found.shape.sure else "-"
    law = "-"
    if found.fits:
        law = found.fits[0].law.name if found.fits[0].holds else f"none ({found.fits[0].law.name} is nearest)"
    return [found.curve.metric.name, found.shape.name.replace("_", " "), sure, law, foretold, *numbers]


def _with_interval(value: float, span: tuple[float, float]) -> str:
    return f"{_number(value)} ({_number(span[0])} to {_number(span[1])})"


def _number(value: float) -> str:
    return short(value) if math.isfinite(value) else "no bound"
