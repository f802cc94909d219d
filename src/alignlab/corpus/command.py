"""`alignlab corpus audit | clean | mix | stats | pack`: the command line of this room."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_INPUTS = "a file (.txt: a document a line; .jsonl, .csv, .tsv; also .gz; .tar: a shard) or a folder of such"


def add(commands: "argparse._SubParsersAction") -> None:
    """Adds the command to a parser."""
    top = commands.add_parser(
        "corpus",
        help="texts, captions, chats and pairs: audit, clean, mix, count, pack",
        description="A chain of steps, each keeps, drops or edits a document and says why (docs/corpus.md).",
    )
    which = top.add_subparsers(required=True, metavar="audit | clean | mix | stats | pack")
    audit = which.add_parser(
        "audit",
        help="what the chain would do: a report",
        description="Writes report.html, report.json and dropped.jsonl, and leaves the data alone.",
    )
    _chain(audit, "where the report goes; default: corpus_audit", Path("corpus_audit"))
    audit.set_defaults(run=_clean, cleaned=False)
    clean = which.add_parser(
        "clean",
        help="do it: cleaned files in the same format and order",
        description="Writes cleaned files, dropped.jsonl with reasons, report.html and report.json. The same command "
        "goes on where it was stopped.",
    )
    _chain(clean, "where the cleaned files go", None)
    clean.set_defaults(run=_clean, cleaned=True)
    mix = which.add_parser(
        "mix",
        help="sources by weight, with epochs counted",
        description="Writes documents of several sources in a random order: PLACE=WEIGHT, or places alone by their "
        "number of words. With --temperature T weights and sizes count as their 1/T-th power.",
    )
    mix.add_argument("places", nargs="+", metavar="PLACE[=WEIGHT]", help="uncompressed .jsonl or .txt, or a folder")
    mix.add_argument("--to", type=Path, metavar="FOLDER", required=True)
    mix.add_argument("--words", type=int, help="of the mixture; default: as many as all sources hold")
    mix.add_argument("--temperature", type=float, default=1.0)
    mix.add_argument("--seed", type=int, default=0)
    mix.set_defaults(run=_mix)
    stats = which.add_parser("stats", help="documents, words, lengths, languages of each file")
    stats.add_argument("inputs", nargs="+", type=Path, metavar="PLACE", help=_INPUTS)
    stats.add_argument("--json", type=Path, metavar="FILE", help="the same as JSON")
    stats.set_defaults(run=_stats)
    pack = which.add_parser("pack", help="tokens in shards that are mapped into memory")
    pack.add_argument("inputs", nargs="+", type=Path, metavar="PLACE", help=_INPUTS)
    pack.add_argument("--tokenizer", metavar="PLACE", help="as in alignlab tokenizers compare")
    pack.add_argument("--vocab-size", type=int, metavar="N", help="instead: train one of so many ids on the texts")
    pack.add_argument("--to", type=Path, metavar="FOLDER", required=True)
    pack.add_argument("--end", type=int, metavar="ID", help="put behind every document; default: training does")
    pack.add_argument("--shard-tokens", type=int, default=100_000_000, help="of a shard; default: 100 million")
    pack.set_defaults(run=_pack)


def _chain(command: argparse.ArgumentParser, about: str, folder: Path | None) -> None:
    command.add_argument("inputs", nargs="+", type=Path, metavar="PLACE", help=_INPUTS)
    command.add_argument("--to", type=Path, metavar="FOLDER", default=folder, required=folder is None, help=about)
    command.add_argument(
        "--kind", choices=["text", "captions", "sft", "pairs"], help="default: by the first file's columns"
    )
    command.add_argument(
        "--whole-files", action="store_true", help="a .txt is one document, as data=text has it; default: one a line"
    )
    command.add_argument("--steps", nargs="+", default=[], metavar="STEP", help="which, in order; default: the kind's")
    command.add_argument("--chain", type=Path, metavar="FILE", help="the same as a list in YAML, with settings")
    command.add_argument("--set", nargs="+", default=[], metavar="STEP.SETTING=VALUE", help="near_dup.threshold=0.8")
    command.add_argument(
        "--against",
        nargs="+",
        type=Path,
        default=[],
        metavar="PLACE",
        help="data whose duplicates go too: held-out files",
    )
    command.add_argument(
        "--evaluation", nargs="+", type=Path, default=[], metavar="FILE", help="of which no piece may be in the data"
    )
    command.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="look at the pictures of captions too; where their paths start"
    )
    command.add_argument("--jobs", type=int, default=1, help="processes; default: 1")


def _clean(options: argparse.Namespace) -> None:
    from alignlab.corpus.cleaning import clean, plan_of  # after --help
    from alignlab.corpus.settings import chain_of

    if options.jobs < 1:
        raise ValueError(f"--jobs is {options.jobs}; it must be at least 1")
    plan = plan_of(
        options.inputs,
        options.against,
        options.kind,
        options.whole_files,
        options.to,
        lambda kind: chain_of(kind, options.steps, options.chain, options.set, options.evaluation, options.pictures),
    )
    report = clean(plan, options.to, cleaned=options.cleaned, jobs=options.jobs, say=_Progress())
    _show(report, options)


def _mix(options: argparse.Namespace) -> None:
    from alignlab.corpus.mixing import MANY_EPOCHS, mix  # after --help

    places: dict[str, float | None] = {}
    for word in options.places:
        place, sign, weight = word.rpartition("=")
        if not sign or Path(word).exists():
            place, weight = word, None
        if place in places:
            raise ValueError(f"{place} is given twice")
        try:
            places[place] = None if weight is None else float(weight)
        except ValueError:
            raise ValueError(f"{word}: {weight!r} is no weight; it must be a number") from None
    if options.words is not None and options.words < 1:
        raise ValueError(f"--words is {options.words}; it must be at least 1")
    rows = mix(places, options.to, words=options.words, temperature=options.temperature, seed=options.seed)
    _table(rows)
    for row in rows:
        if row["epochs"] > MANY_EPOCHS:
            print(f"{row['source']} is gone through {row['epochs']:.1f} times; beyond {MANY_EPOCHS}, that adds little")
    print(options.to / "data")


def _stats(options: argparse.Namespace) -> None:
    import json

    from alignlab.corpus.statistics import stats  # after --help
    from alignlab.files.writing import write_text

    rows = stats(options.inputs)
    flat = []
    for row in rows:
        lengths = row["words of a document"]
        most = ", ".join(f"{name} {count / max(row['documents'], 1):.0%}" for name, count in row["languages"].items())
        plain = {name: value for name, value in row.items() if not isinstance(value, dict)}
        flat.append({**plain, "median": lengths["median"], "p95": lengths["p95"], "languages": most[:60]})
    _table(flat)
    if options.json is not None:
        write_text(options.json, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")


def _pack(options: argparse.Namespace) -> None:
    import os

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from alignlab.corpus.packing import pack  # after --help

    how = {name: getattr(options, name) for name in ("vocab_size", "end", "shard_tokens")}
    index = pack(options.inputs, options.tokenizer, options.to, **how)
    told = f"{index['documents']:,} documents, {index['tokens']:,} tokens ({index['dtype']})"
    print(f"{told}, {len(index['shards'])} shards")
    if index["left out"]:
        print(f"{index['left out']:,} rows can't be read and are left out")


def _table(rows: list[dict]) -> None:
    from rich.table import Table

    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    _print(table)


class _Progress:
    """Says how far it is: a line that is written over at a terminal, elsewhere one every 30 seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        line, terminal = f"{done} of {of} parts", sys.stderr.isatty()
        if terminal:
            print(f"\r{line}", end="\n" if done == of else "", file=sys.stderr, flush=True)
        elif time.monotonic() - self._last > 30:
            self._last = time.monotonic()
            print(line, file=sys.stderr, flush=True)


def _print(table: "Table") -> None:
    from rich.console import Console

    terminal = sys.stdout.isatty()
    Console(soft_wrap=not terminal, width=None if terminal else 200).print(table)


def _show(report: dict, options: argparse.Namespace) -> None:
    from rich.table import Table

    table = Table("step", "in", "dropped", "edited", "told", "out", title=f"{report['kind']}", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in report["funnel"]:
        table.add_row(row["step"], *(f"{row[name]:,}" for name in ("in", "dropped", "edited", "told", "out")))
    _print(table)
    for row in report["reasons"][:8]:
        print(f"{row['documents']:>9,}  {row['step']}: {row['reason']}")
    kept, size = report["documents"]["kept"], report["bytes"]["kept"] / 1e6
    print(f"{kept:,} of {report['documents']['in']:,} documents are kept, {size:,.1f} MB")
    print(options.to / "report.html")
