"""`alignlab study`: what a study says, and whether it holds with other seeds."""

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the `alignlab` program."""
    study = commands.add_parser("study", help="what a tuning study, or any Hydra sweep, says: report, confirm")
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
    confirm = parts.add_parser(
        "confirm",
        help="the best trial and a baseline again with other seeds: adopt, don't, or not distinguishable",
        description="Runs below DIR/confirm; the same command goes on. The baseline is the best trial with another "
        "scientific setting, else the middling trial. WORDS behind DIR go to every run: hydra.launcher.n_jobs=2.",
    )
    confirm.add_argument("directory", type=Path, metavar="DIR")
    confirm.add_argument("-n", type=int, default=5, help="seeds of each; default: 5")
    confirm.add_argument("--baseline", type=int, metavar="TRIAL", help="number of the trial to compare with")
    confirm.add_argument("words", nargs="*", metavar="WORD", help="for every run")
    confirm.set_defaults(run=_confirm)


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


def _confirm(options: argparse.Namespace) -> None:
    from alignlab.studies.confirm import confirm  # after --help
    from alignlab.studies.reading import directories

    data = directories.read(options.directory)
    print(confirm(data, options.n, options.baseline, options.words).text(data.metric))
