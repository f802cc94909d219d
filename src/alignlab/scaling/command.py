"""`alignlab scaling`: a curve over a ladder of models, with an honest verdict."""

import argparse
import json
from pathlib import Path

from alignlab.scaling.reading.kinds import KINDS


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the `alignlab` program."""
    scaling = commands.add_parser("scaling", help="from models of several sizes to a curve with an honest verdict")
    parts = scaling.add_subparsers(required=True, metavar="WHAT")
    report = parts.add_parser(
        "report",
        help="the shape of each metric over sizes, laws, a verdict for each task, and what would settle it",
        description="Reads run directories with items.jsonl (folders and patterns of such), or one table (.csv, .tsv, "
        ".jsonl) with x, metric, and n with k, or value with low and high. Writes report.json.",
    )
    _add_ladder(report)
    report.add_argument("--output", type=Path, default=Path("scaling"), metavar="FOLDER", help="default: scaling")
    report.set_defaults(run=_report)


def _add_ladder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("places", nargs="+", metavar="RUNS", help="run directories, folders of such, patterns, a table")
    parser.add_argument("--x", choices=KINDS, default="params", help="what a run's size is; default: params")
    parser.add_argument("--task", nargs="+", default=[], help="default: all")
    parser.add_argument("--metric", nargs="+", default=[], help="default: all that can be read")


def _report(options: argparse.Namespace) -> None:
    from alignlab.files.writing import write_text  # after --help
    from alignlab.scaling.findings import as_json, findings
    from alignlab.scaling.reading import ladder

    read = ladder.read(options.places, options.x, options.task, options.metric)
    told = findings(read)
    file = options.output / "report.json"
    write_text(file, json.dumps(as_json(read, told), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    for task in told:
        print(f"{task.task}: {task.verdict.code.replace('_', ' ')}. {task.verdict.text}")
        for each in task.curves:
            sure = f" ({each.shape.sure:.0%} of the resamples)" if each.shape.sure else f": {each.shape.why}"
            print(f"  {each.curve.metric.name}: {each.shape.name.replace('_', ' ')}{sure}")
        for line in task.verdict.then:
            print(f"  next: {line}")
    for line in read.problems:
        print(f"- {line}")
    print(file)
