"""`alignlab tokenizers compare | extend`: the command line of this room."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.tokenizers.continued_merges import SCRIPTS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAILED = 3  # exit code: some tokenizer couldn't be read


def add(commands: "argparse._SubParsersAction") -> None:
    """Adds the command to a parser."""
    top = commands.add_parser(
        "tokenizers",
        help="what tokenizers make of your text",
        description="Compares tokenizers on a corpus of yours, by content and not by name.",
    )
    which = top.add_subparsers(required=True, metavar="compare | extend")
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
    for form in ("csv", "json", "html"):
        compare.add_argument(f"--{form}", type=Path, metavar="FILE")
    compare.set_defaults(run=_compare)
    extend = which.add_parser(
        "extend",
        help="more pieces for a script",
        description="Goes on with the merges of a byte pair encoding on texts; other text is cut as before. "
        "Every tenth record is kept out, to say what is saved.",
    )
    extend.add_argument("tokenizer", metavar="PLACE")
    _corpus(extend)
    extend.add_argument("--script", default="han", choices=list(SCRIPTS))
    extend.add_argument("--pieces", type=int, default=5000, help="new ones at most; default: 5000")
    extend.add_argument("--output", type=Path, metavar="FOLDER", help="where to write; default: only say")
    extend.add_argument("--model", type=Path, metavar="FOLDER", help="whose embeddings are extended too")
    extend.add_argument("--width", type=int, help="of embeddings, where no model is given")
    extend.set_defaults(run=_extend)


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
    from alignlab.reports.page import render
    from alignlab.tokenizers.comparison import Comparison
    from alignlab.tokenizers.corpus import Corpus
    from alignlab.tokenizers.opening import named
    from alignlab.tokenizers.pages import page_of
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
    for name, write in (("csv", as_csv), ("json", as_json), ("html", lambda report: render(page_of(report)))):
        if (file := getattr(options, name)) is not None:
            write_text(file, write(report))
    failed = [row for row in report["rows"] if row["error"] is not None]
    for row in failed:
        print(f"error: {row['tokenizer']}: {row['error']}", file=sys.stderr)
    return FAILED if failed else 0


def _extend(options: argparse.Namespace) -> int:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from rich.console import Console
    from rich.table import Table

    from alignlab.tokenizers import extension as room
    from alignlab.tokenizers.continued_merges import of_script
    from alignlab.tokenizers.corpus import Corpus
    from alignlab.tokenizers.kinds.hugging_face import Fast
    from alignlab.tokenizers.opening import file_of, open_tokenizer

    base, _ = open_tokenizer(options.tokenizer, package=False)
    if not isinstance(base, Fast):
        raise ValueError(
            f"{options.tokenizer} can't be extended: a tokenizer.json can, and a SentencePiece model of kind BPE"
        )
    if options.output is not None and options.output.exists() and any(options.output.iterdir()):
        raise ValueError(f"output: {options.output} isn't empty")
    corpus = Corpus(options.corpus, options.names, options.limit)
    if corpus.kind == "chats":
        raise ValueError("an extension is learned from texts, not from chats")
    model = _model(options.model) if options.model is not None else None
    learned: list[str] = []
    held_out: list[str] = []
    for number, record in enumerate(corpus):
        (held_out if number % 10 == 9 else learned).extend(record.values())
    inside = of_script(options.script)
    old = [text for text in held_out if not any(map(inside, text))]
    new = [text for text in held_out if any(map(inside, text))]
    extension = room.learn(base, learned, options.pieces, options.script)
    if not extension.ids:
        raise ValueError(f"the corpus has nothing in {options.script} that repeats")
    width = options.width if model is None else model.get_input_embeddings().weight.shape[1]
    tied = model is not None and bool(model.config.get_text_config().tie_word_embeddings)
    rows = room.forecast(extension, new, width, tied)
    table = Table(*rows[0], title=f"{len(new)} texts in {options.script} that were kept out", title_justify="left")
    for row in rows:
        table.add_row(*(f"{value:.1%}" if key == "saved" else f"{value:,}" for key, value in row.items()))
    Console(soft_wrap=not sys.stdout.isatty()).print(table)
    print(f"{room.check_old_texts(extension, old)} texts without {options.script} are cut as before")
    if model is not None:
        print(f"logits of old ids on old text: largest change {room.extend_model(model, extension):.2g}")
    if options.output is not None:
        source = file_of(options.tokenizer)
        room.write(extension, options.output, source.parent if source else None, model)
        print(f"{options.output}: {len(extension.ids)} new pieces")
    return 0


def _model(folder: Path) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"model: {folder} can't be read ({lines[0]})") from error
