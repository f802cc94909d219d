"""`alignlab study`: what a study says, and whether it holds with other seeds."""

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the `alignlab` program."""
    study = commands.add_parser("study", help="what a tuning study, or any Hydra sweep, says: report")
    parts = study.add_subparsers(required=True, metavar="WHAT")
    report = parts.add_parser(
        "report",
        help="one HTML page with a verdict, bounds, comparisons, curves and the study to run next",
        description="Reads a study's directory, or that of any Hydra sweep (also other projects'), and writes report/: "
        "report.html, report.json with coded findings, pictures, next_study.yaml.",
    )
    report.add_argument("directory", type=Path, metavar="DIR")
    report.add_argument("--metric", help="what is compared; default: what the study declares")
    report.add_argument("--mode", choices=["min", "max"], help="whether small or large is good")
    report.add_argument("--output", type=Path, metavar="FOLDER", help="default: DIR/report")
    report.add_argument("--no-pictures", action="store_true", help="no PNG files beside the page")
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> None:
    from alignlab.studies.reading import directories  # after --help
    from alignlab.studies.showing import report

    data = directories.read(options.directory, options.metric, options.mode)
    page, told = report.write(data, options.output, pictures=not options.no_pictures)
    print(report.verdict(data, told))
    for each in told:
        if each.code not in ("better", "not_distinguishable"):
            print(f"- {each.text}")
    print(page)
