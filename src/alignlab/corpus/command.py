"""`alignlab corpus audit | clean`: the command line of this room."""

import argparse
import sys
import time
from pathlib import Path

_INPUTS = "a file (.txt: a document a line; .jsonl, .csv, .tsv; also .gz) or a folder of such"


def add(commands: "argparse._SubParsersAction") -> None:
    """Adds the command to a parser."""
    top = commands.add_parser(
        "corpus",
        help="texts, captions, chats and pairs: audit and clean",
        description="A chain of steps, each of which keeps, drops or edits a document, with a reason (docs/corpus.md).",
    )
    which = top.add_subparsers(required=True, metavar="audit | clean")
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


def _chain(command: argparse.ArgumentParser, about: str, folder: Path | None) -> None:
    command.add_argument("inputs", nargs="+", type=Path, metavar="PLACE", help=_INPUTS)
    command.add_argument("--to", type=Path, metavar="FOLDER", default=folder, required=folder is None, help=about)
    command.add_argument("--kind", choices=["text", "captions"], help="default: by the first file's columns")
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
        lambda kind: chain_of(kind, options.steps, options.chain, options.set),
    )
    report = clean(plan, options.to, cleaned=options.cleaned, jobs=options.jobs, say=_Progress())
    _show(report, options)


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


def _show(report: dict, options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("step", "in", "dropped", "edited", "told", "out", title=f"{report['kind']}", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in report["funnel"]:
        table.add_row(row["step"], *(f"{row[name]:,}" for name in ("in", "dropped", "edited", "told", "out")))
    console = Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 200)
    console.print(table)
    for row in report["reasons"][:8]:
        print(f"{row['documents']:>9,}  {row['step']}: {row['reason']}")
    kept, size = report["documents"]["kept"], report["bytes"]["kept"] / 1e6
    print(f"{kept:,} of {report['documents']['in']:,} documents are kept, {size:,.1f} MB")
    print(options.to / "report.html")
