"""A comparison as a table, as CSV and as JSON."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from rich.table import Table

Row = dict[str, Any]


def flat(report: Row) -> Iterator[Row]:
    """A row for each tokenizer and part of the corpus; one for a tokenizer that couldn't be read."""
    for row in report["rows"]:
        head = {
            key: row.get(key, "")
            for key in (
                "tokenizer",
                "kind",
                "implementation",
                "vocabulary",
                "pieces",
                "known as",
                "fingerprint",
                "specials",
            )
        }
        head |= {"unused": row.get("unused", ""), "load seconds": row.get("load seconds", "")}
        if row["error"] is not None:
            yield {**head, "error": row["error"]}
            continue
        for part, columns in row["parts"].items():
            cells = {key: value for key, value in columns.items() if not isinstance(value, dict | list)}
            for name in ("truncated", "lost"):
                cells |= {f"{name} at {context}": value for context, value in columns[name].items()}
            for name, values in row.get("pairs", {}).items():
                cells |= {f"{name} at {context}": value for context, value in values.items()}
            ratio = next((v for key, v in row.get("parity", {}).items() if key.startswith(f"{part}/")), None)
            if ratio is not None:
                cells |= {"parity": ratio[0], "parity low": ratio[1], "parity high": ratio[2]}
            speed = row["speed"].get(part, {})
            cells |= {key: speed[key] for key in ("MB/s", "slowest", "fastest", "threads", "batch") if key in speed}
            yield {**head, "part": part, **cells, "error": ""}


def as_csv(report: Row) -> str:
    """All columns."""
    rows = list(flat(report))
    names = dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(report: Row) -> str:
    """Everything, with the counts of lengths and what failed to come back."""
    return json.dumps(report, ensure_ascii=False, indent=1)


def tables(report: Row) -> Iterator[Table]:
    """For a terminal: a table for each part, then speed."""
    read = [row for row in report["rows"] if row["error"] is None]
    contexts = report["settings"]["contexts"]
    for part in read[0]["parts"] if read else ():
        ratio = next((key for key in read[0].get("parity", {}) if key.startswith(f"{part}/")), None)
        names = [
            "vocabulary",
            "mean",
            "median",
            "p95",
            "bytes/token",
            "chars/token",
            "round trip",
            "unknown",
            "byte tokens",
        ]
        names += ["Han single"] + [f"cut at {n}" for n in contexts] + [f"lost at {n}" for n in contexts]
        names += [ratio] if ratio else []
        table = Table(
            "tokenizer", *names, title=f"{part}: {read[0]['parts'][part]['texts']} texts", title_justify="left"
        )
        for row in read:
            columns = row["parts"][part]
            cells = [
                f"{row['vocabulary']}",
                f"{columns['mean']:.1f}",
                f"{columns['median']:g}",
                f"{columns['p95']:.0f}",
            ]
            cells += [f"{columns['bytes per token']:.2f}", f"{columns['chars per token']:.2f}"]
            cells += [percent(columns[key]) for key in ("round trip", "unknown", "byte tokens", "Han single")]
            cells += [percent(columns[key][n]) for key in ("truncated", "lost") for n in contexts]
            cells += ["{:.3f} ({:.3f} to {:.3f})".format(*row["parity"][ratio])] if ratio else []
            table.add_row(row["tokenizer"], *cells)
        yield table
    if any("pairs" in row for row in read):
        shares = list(read[0]["pairs"])
        table = Table("tokenizer", *(f"{share} at {n}" for share in shares for n in contexts), title="pairs")
        for row in read:
            table.add_row(row["tokenizer"], *(percent(row["pairs"][s][n]) for s in shares for n in contexts))
        yield table
    if any(row["speed"] for row in read):
        names = ["implementation", "threads", "batch", "load s"]
        table = Table(
            "tokenizer", *names, *(f"{part} MB/s" for part in read[0]["speed"]), title="speed (slowest to fastest pass)"
        )
        for row in read:
            speed = row["speed"]
            any_part = next(iter(speed.values()))
            rates = [f"{s['MB/s']:.2f} ({s['slowest']:.2f} to {s['fastest']:.2f})" for s in speed.values()]
            cells = [
                row["implementation"],
                str(any_part["threads"]),
                str(any_part["batch"]),
                f"{row['load seconds']:.2f}",
            ]
            table.add_row(row["tokenizer"], *cells, *rates)
        yield table


def percent(share: float | None) -> str:
    """A share in percent; small ones aren't rounded to nothing."""
    if share is None:
        return "-"
    return f"{share:.1%}" if share in (0, 1) or 0.001 <= share <= 0.999 else f"{share:.3%}"
