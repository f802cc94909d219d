"""`alignlab report RUN` and `alignlab compare RUN...`: the command line of this room."""

import argparse
from pathlib import Path


def add(commands: "argparse._SubParsersAction") -> None:
    """Adds both commands to a parser."""
    report = commands.add_parser(
        "report",
        help="a run as one HTML page",
        description="What a run was, its curves, numbers, samples, warnings and config, in one file.",
    )
    report.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    report.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in the run directory")
    report.set_defaults(run=_report)
    compare = commands.add_parser(
        "compare",
        help="several runs as one HTML page",
        description="What differs between runs, their numbers with the spread over seeds, and their curves over each "
        "other. A directory of runs stands for all in it.",
    )
    compare.add_argument("places", type=Path, nargs="+", metavar="RUN_DIR")
    compare.add_argument(
        "--output", type=Path, metavar="FILE", default=Path("comparison.html"), help="default: comparison.html"
    )
    compare.set_defaults(run=_compare)


def _report(options: argparse.Namespace) -> None:
    from alignlab.files.runs import newest_run  # after --help
    from alignlab.files.writing import write_text
    from alignlab.reports.page import render
    from alignlab.reports.runs.one import page_of
    from alignlab.reports.runs.reading import read_run

    folder = newest_run(options.run_dir)
    file = options.output or folder / "report.html"
    write_text(file, render(page_of(read_run(folder))))
    print(file)


def _compare(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from alignlab.files.writing import write_text
    from alignlab.reports.page import render
    from alignlab.reports.runs.reading import runs_below
    from alignlab.reports.runs.several import differing, groups, page_of, table

    runs = runs_below(options.places)
    found = groups(runs)
    console = Console(highlight=False, soft_wrap=True)
    for key in differing(runs):
        console.print(f"{key}: {', '.join(dict.fromkeys(str(group.settings[key]) for group in found))}", markup=False)
    head, rows = table(found)
    shown = Table(*("metric", *(row[0] for row in rows)))
    for number, name in enumerate(head[1:], 1):
        shown.add_row(name, *(row[number] for row in rows))
    console.print(shown)
    write_text(options.output, render(page_of(runs)))
    print(options.output)
