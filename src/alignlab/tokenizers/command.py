"""`alignlab tokenizers compare | extend`: the command line of this room."""

import argparse
import os
import sys
from pathlib import Path

FAILED = 3  # exit code: some tokenizer couldn't be read


def add(commands: "argparse._SubParsersAction") -> None:
    """Adds the command to a parser."""
    top = commands.add_parser(
        "tokenizers",
        help="what tokenizers make of your text",
        description="Compares tokenizers on a corpus of yours, by content and not by name.",
    )
    which = top.add_subparsers(required=True, metavar="compare")
    compare = which.add_parser(
        "compare",
        help="lengths, losses, exactness, speed",
        description="A tokenizer is a file (tokenizer.json, *.model, *.tiktoken, vocab.txt, CLIP's merges), a folder, "
        "a run directory, package:NAME/PATH, slow:FOLDER, a repository in the hub's cache, bytes or characters.",
    )
    compare.add_argument("tokenizers", nargs="+", metavar="[NAME=]PLACE")
    _corpus(compare)
    compare.add_argument("--contexts", type=int, nargs="+", default=[77, 30], metavar="TOKENS", help="default: 77 30")
    compare.add_argument("--passes", type=int, default=5, help="of the speed test; 0: none")
    compare.add_argument("--threads", type=int, default=1)
    compare.add_argument("--batch-size", type=int, default=1000, help="texts at a time")
    compare.add_argument("--samples", type=int, default=4, help="records shown token by token")
    for form in ("csv", "json"):
        compare.add_argument(f"--{form}", type=Path, metavar="FILE")
    compare.set_defaults(run=_compare)


def _corpus(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--corpus",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help=".txt, .tsv, .jsonl (all also .gz), or parallel files",
    )
    command.add_argument("--names", nargs="+", default=[], metavar="NAME", help="of the corpus's parts")
    command.add_argument("--limit", type=int, metavar="RECORDS")


def _compare(options: argparse.Namespace) -> int:
    # Read by the Rust library when it first works in parallel.
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if options.threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    from rich.console import Console

    from alignlab.files.writing import write_text
    from alignlab.tokenizers.comparison import Comparison
    from alignlab.tokenizers.corpus import Corpus
    from alignlab.tokenizers.opening import named
    from alignlab.tokenizers.tables import as_csv, as_json, tables

    comparison = Comparison(
        contexts=tuple(options.contexts),
        batch_size=options.batch_size,
        passes=options.passes,
        threads=options.threads,
        samples=options.samples,
    )
    rows, corpus = named(options.tokenizers), Corpus(options.corpus, options.names, options.limit)
    report = comparison.run(rows, corpus, lambda name: print(name, file=sys.stderr))
    console = Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 400)
    for table in tables(report):
        console.print(table)
    for finding in report["findings"]:
        console.print(f"{finding['finding']}: {finding['text']}", markup=False, highlight=False)
    for name, write in (("csv", as_csv), ("json", as_json)):
        if (file := getattr(options, name)) is not None:
            write_text(file, write(report))
    failed = [row for row in report["rows"] if row["error"] is not None]
    for row in failed:
        print(f"error: {row['tokenizer']}: {row['error']}", file=sys.stderr)
    return FAILED if failed else 0
