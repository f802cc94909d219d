"""A comparison as a page."""

from typing import Any

from alignlab.reports.charts import bars, histograms
from alignlab.reports.page import Block, Cut, Figure, Grid, Note, Page, Section
from alignlab.tokenizers.kinds.alphabet import BYTE
from alignlab.tokenizers.tables import percent, tables

Row = dict[str, Any]


def page_of(report: Row) -> Page:
    """Findings, a section for each part of the corpus, speed, and samples token by token."""
    read = [row for row in report["rows"] if row["error"] is None]
    corpus = report["corpus"]
    first = next(iter(read[0]["parts"].values())) if read else {"texts": 0}
    lead = f"{first['texts']} records ({corpus['kind']}) of {', '.join(corpus['files'])}"
    lead += f"; {corpus['skipped']} left out with an empty part" if corpus["skipped"] else ""
    findings: list[Block] = [
        Note(f"{row['tokenizer']}: {row['error']}", warns=True) for row in report["rows"] if row["error"]
    ]
    findings += [Note(f"{finding['finding']}: {finding['text']}", warns=True) for finding in report["findings"]]
    sections = [Section("Findings", findings or [Note("None.")]), Section("Vocabularies", [_vocabularies(read)])]
    grids = {table.title: Grid(*_cells(table)) for table in tables(report)}
    for part in read[0]["parts"] if read else ():
        grid = next(grid for title, grid in grids.items() if title.startswith(f"{part}:"))
        sections.append(Section(f"Text: {part}", _part(read, part, report["settings"]["contexts"], grid)))
    for title in ("pairs", "speed"):
        sections += [Section(name.capitalize(), [grid]) for name, grid in grids.items() if name.startswith(title)]
    if any(row["samples"] for row in read):
        sections.append(Section("Token by token", _samples(report, read)))
    return Page("Tokenizers", lead, sections)


def _vocabularies(read: list[Row]) -> Grid:
    head = ["tokenizer", "kind", "ids", "pieces", "known as", "never used", "fingerprint", "notes"]
    rows = [
        [
            row["tokenizer"],
            row["kind"],
            str(row["vocabulary"]),
            str(row["pieces"]),
            row["known as"] or "-",
            percent(row["unused"]),
            row["fingerprint"][:12],
            "; ".join(row["notes"]) or "-",
        ]
        for row in read
    ]
    return Grid(head, rows)


def _part(read: list[Row], part: str, contexts: tuple[int, ...], grid: Grid) -> list[Block]:
    columns = {row["tokenizer"]: row["parts"][part] for row in read}
    ordered = sorted(columns.items(), key=lambda item: item[1]["mean"])
    lengths = bars([(name, c["mean"], f"{c['mean']:.1f}") for name, c in ordered])
    blocks: list[Block] = [grid, Figure(lengths, "tokens of a text, mean; fewer is less to compute")]
    for context in contexts:
        shares = [(name, c["truncated"][context], percent(c["truncated"][context])) for name, c in ordered]
        if any(share for _, share, _ in shares):
            blocks.append(Figure(bars(shares, 1), f"share of texts that do not fit a context of {context}"))
    shapes = histograms({name: c["lengths"] for name, c in ordered}, [(n, str(n)) for n in contexts])
    blocks.append(Figure(shapes, "how many texts have how many tokens; lines at the contexts"))
    for row in read:
        for failure in row["parts"][part]["failures"][:1]:
            text = f"{row['tokenizer']} doesn't give back {_short(failure['text'])!r} but {_short(failure['back'])!r}"
            blocks.append(Note(text))
    return blocks


def _short(text: str, size: int = 90) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def _samples(report: Row, read: list[Row]) -> list[Block]:
    blocks: list[Block] = [Note("Tinted red: pieces that are no whole character, as bytes.")]
    for number, _ in enumerate(report["samples"]):
        for part in read[0]["samples"][number]:
            for row in read:
                pieces = [(text, "\\x" in text or bool(BYTE.fullmatch(text))) for text in row["samples"][number][part]]
                blocks.append(Cut(row["tokenizer"], pieces))
    return blocks


def _cells(table: Any) -> tuple[list[str], list[list[str]]]:
    columns = [list(column.cells) for column in table.columns]
    return [str(column.header) for column in table.columns], [list(row) for row in zip(*columns, strict=True)]
