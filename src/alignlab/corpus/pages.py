"""A report as a page: the funnel, reasons, lengths and languages before and after, samples of what was dropped."""

import json
from typing import Any

from alignlab.reports.charts import bars, histograms
from alignlab.reports.page import Block, Figure, Grid, Listing, Note, Page, Section

Row = dict[str, Any]


def page_of(report: Row) -> Page:
    """The page."""
    documents, size = report["documents"], report["bytes"]
    lead = (
        f"{documents['in']:,} documents ({report['kind']}), {size['in'] / 1e6:,.1f} MB, of {len(report['files'])} "
        f"file{'s' if len(report['files']) > 1 else ''}; {documents['kept']:,} are kept "
        f"({_share(documents['kept'], documents['in'])}), {size['kept'] / 1e6:,.1f} MB"
    )
    sections = [
        Section("Funnel", _funnel(report)),
        Section("Why documents went", _reasons(report)),
        Section("Lengths and languages", _before_and_after(report)),
        *_found(report),
        Section("Files", _files(report)),
        *_samples(report),
        Section("Settings", [Listing("The chain of steps", json.dumps(report["chain"], indent=1, ensure_ascii=False))]),
    ]
    return Page("Corpus", lead, sections)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _funnel(report: Row) -> list[Block]:
    total = max(report["documents"]["in"], 1)
    drawn = [("all", total, f"{report['documents']['in']:,}")]
    drawn += [(f"after {row['step']}", row["out"], f"{row['out']:,}") for row in report["funnel"]]
    head = ["step", "in", "dropped", "share", "edited", "only told", "out", "MB out"]
    rows = [
        [
            row["step"],
            f"{row['in']:,}",
            f"{row['dropped']:,}",
            _share(row["dropped"], row["in"]),
            f"{row['edited']:,}" if row["edited"] else "-",
            f"{row['told']:,}" if row["told"] else "-",
            f"{row['out']:,}",
            f"{row['bytes out'] / 1e6:,.1f}",
        ]
        for row in report["funnel"]
    ]
    return [Figure(bars(drawn, total), "documents left after each step"), Grid(head, rows)]


def _reasons(report: Row) -> list[Block]:
    if not report["reasons"]:
        blocks: list[Block] = [Note("None went.")]
    else:
        drawn = [
            (f"{row['step']}: {row['reason']}", row["documents"], f"{row['documents']:,}")
            for row in report["reasons"][:20]
        ]
        blocks = [Figure(bars(drawn), "documents dropped, the most frequent reasons")]
    for title, rows in (("edited", report["edits"]), ("kept, but told of", report["told"])):
        if rows:
            head = ["step", "what", f"documents {title}"]
            blocks.append(Grid(head, [[row["step"], row["reason"], f"{row['documents']:,}"] for row in rows[:20]]))
    return blocks


def _before_and_after(report: Row) -> list[Block]:
    blocks: list[Block] = [Figure(histograms(report["lengths"]), "words of a document, before and after")]
    language = report["language"]
    before, after = dict(language["before"]), dict(language["after"])
    total = max(report["documents"]["in"], 1)
    if set(before) - {"unknown"}:
        rows = [(name, count, f"{count:,} → {after.get(name, 0):,}") for name, count in before.items()]
        blocks.append(Figure(bars(rows, total), f"documents by language, before → after (told by {language['by']})"))
    return blocks


def _found(report: Row) -> list[Section]:
    """What only some kinds of data have: items of an evaluation, the bias of preferences."""
    sections = []
    if (evaluation := report["evaluation"]) is not None:
        told = (
            f"{evaluation['hit']:,} of {evaluation['items']:,} items are hit; {evaluation['too short']:,} are too short"
        )
        rows = [[item, f"{count:,}"] for item, count in evaluation["most"][:20]]
        blocks: list[Block] = [Note(told, warns=evaluation["hit"] > 0)]
        sections.append(
            Section("Evaluation", [*blocks, Grid(["item", "documents with a piece"], rows)] if rows else blocks)
        )
    if (bias := report["length bias"]) is not None and bias["pairs"]:
        low, high = bias["interval"]
        interval = f"95 %: {low:.1%} to {high:.1%}"
        told = f"In {bias['share']:.1%} ({interval}) of {bias['pairs']:,} pairs, the longer side is chosen."
        sections.append(Section("Length of what is preferred", [Note(told, warns=low > 0.5 or high < 0.5)]))
    return sections


def _files(report: Row) -> list[Block]:
    rows = [
        [name, f"{file['in']:,}", f"{file['kept']:,}", _share(file["kept"], file["in"]), f"{file['bytes'] / 1e6:,.1f}"]
        for name, file in report["files"].items()
    ]
    blocks: list[Block] = [Grid(["file", "in", "kept", "share", "MB kept"], rows)]
    if report["references"]:
        blocks.append(Note(f"Compared with {', '.join(report['references'])}."))
    if report["crossing"]:
        found = [[row["file"], row["kept in"], f"{row['documents']:,}"] for row in report["crossing"]]
        blocks.append(Grid(["duplicates in", "of documents in", "documents"], found))
    blocks.append(Note(f"Fingerprint of what was read, done and kept: {report['fingerprint']}"))
    return blocks


def _samples(report: Row) -> list[Section]:
    blocks: list[Block] = []
    for group in report["samples"]:
        rows = []
        for row in group["documents"]:
            why = ", ".join(f"{name} {value}" for name, value in row.items() if name not in ("place", "text", "kept"))
            rows.append([row["place"], why or "-", row["text"], *([row["kept"]] if "kept" in row else [])])
        columns = max(map(len, rows), default=3)
        head = ["where", "evidence", "text", "the one that is kept"][:columns]
        blocks.append(Note(f"{group['step']}: {group['reason']}"))
        blocks.append(Grid(head, [[*row, *[""] * (columns - len(row))] for row in rows], kind="texts"))
    return [Section("Samples", blocks)] if blocks else []
