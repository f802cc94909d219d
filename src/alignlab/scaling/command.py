"""`alignlab scaling`: a curve over a ladder of models, with an honest verdict."""

import argparse
from pathlib import Path

from alignlab.scaling.reading.kinds import KINDS


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the `alignlab` program."""
    scaling = commands.add_parser("scaling", help="from models of several sizes to a curve with an honest verdict")
    parts = scaling.add_subparsers(required=True, metavar="WHAT")
    report = parts.add_parser(
        "report",
        help="the shape of each metric over sizes, laws, a verdict for each task, and what would settle it",
        description="Reads run directories with items.jsonl (folders, patterns), or one table (.csv, .tsv, "
        ".jsonl) with x, metric, and n with k, or value with low and high. Writes report.html, report.json, PNG.",
    )
    _add_ladder(report)
    report.add_argument("--output", type=Path, default=Path("scaling"), metavar="FOLDER", help="default: scaling")
    report.add_argument("--no-pictures", action="store_true", help="no PNG files beside the page")
    report.set_defaults(run=_report)
    _add_predictions(parts)
    late = parts.add_parser(
        "grokking",
        help="whether a run knew its training data long before it did well on others",
        description="Compares two curves of a run's metrics.csv: train/accuracy and val/accuracy, else the losses.",
    )
    late.add_argument("run_dir", type=Path, metavar="RUN")
    late.add_argument("--train", metavar="NAME", help="curve on training data")
    late.add_argument("--val", metavar="NAME", help="curve on other data")
    late.set_defaults(run=_grokking)
    over = parts.add_parser(
        "overoptimisation",
        help="whether a gold judge turns while the reward that PPO or GRPO climbs goes on rising",
        description="Reads KL, score and judge of validations in runs' metrics.csv (a run with a judge logs the last); "
        "writes overoptimisation.html and .json.",
    )
    over.add_argument("runs", nargs="+", metavar="RUN", help="run directories, folders of such, patterns")
    over.add_argument("--kl", default="val/kl", metavar="NAME", help="default: val/kl")
    over.add_argument("--proxy", default="val/score", metavar="NAME", help="default: val/score")
    over.add_argument("--gold", default="val/judge", metavar="NAME", help="default: val/judge")
    over.add_argument("--output", type=Path, default=Path("scaling"), metavar="FOLDER", help="default: scaling")
    over.set_defaults(run=_overoptimisation)


def _add_ladder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("places", nargs="+", metavar="RUNS", help="run directories, folders of such, patterns, a table")
    parser.add_argument("--x", choices=KINDS, default="params", help="what a run's size is; default: params")
    parser.add_argument("--task", nargs="+", default=[], help="default: all")
    parser.add_argument("--metric", nargs="+", default=[], help="default: all that can be read")


def _add_predictions(parts: argparse._SubParsersAction) -> None:
    predict = parts.add_parser(
        "predict",
        help="what the next larger model will do, written down before it is trained",
        description="Freezes laws carried on to a size with their intervals, the date and the sums of what was read. "
        "A file that is there already is never replaced.",
    )
    _add_ladder(predict)
    predict.add_argument("--to", type=float, required=True, metavar="X", help="size of the model to come")
    predict.add_argument("-n", type=int, help="items it will be measured on; default: as many as now")
    predict.add_argument("--output", type=Path, default=Path("prediction.json"), metavar="FILE")
    predict.set_defaults(run=_predict)
    score = parts.add_parser(
        "score",
        help="how a prediction has come out",
        description="Reads the run's items and writes <file>.scored.json beside the prediction.",
    )
    score.add_argument("file", type=Path, metavar="FILE", help="of alignlab scaling predict")
    score.add_argument(
        "run_dir", metavar="RUN", help="run directory of the model that was foretold, or a table with it"
    )
    score.set_defaults(run=_score)


def _report(options: argparse.Namespace) -> None:
    from alignlab.scaling.findings import findings  # after --help
    from alignlab.scaling.reading import ladder
    from alignlab.scaling.showing import report

    read = ladder.read(options.places, options.x, options.task, options.metric)
    told = findings(read)
    page = report.write(read, told, options.output, pictures=not options.no_pictures)
    for task in told:
        print(f"{task.task}: {task.verdict.code.replace('_', ' ')}. {task.verdict.text}")
        for each in task.curves:
            sure = f" ({each.shape.sure:.0%} of the resamples)" if each.shape.sure else f": {each.shape.why}"
            print(f"  {each.curve.metric.name}: {each.shape.name.replace('_', ' ')}{sure}")
        if task.flips is not None:
            for change in task.flips.changes:
                print(f"  {change.text()}")
        for line in task.verdict.then:
            print(f"  next: {line}")
    for line in read.problems:
        print(f"- {line}")
    print(page)


def _predict(options: argparse.Namespace) -> None:
    from alignlab.scaling.prediction import freeze  # after --help
    from alignlab.scaling.reading import ladder

    read = ladder.read(options.places, options.x, options.task, options.metric)
    told = freeze(read, options.x, options.to, options.output, options.n)
    for each in told:
        print(f"{each.task}, {each.metric}: {each.value:.4g} (95 %: {each.low:.4g} to {each.high:.4g}), {each.law}")
    for line in read.problems:
        print(f"- {line}")
    print(options.output)


def _score(options: argparse.Namespace) -> None:
    from alignlab.scaling.prediction import score  # after --help

    rows, notes, file = score(options.file, options.run_dir)
    for row in rows:
        where = "inside" if row.inside else "outside"
        of = f"{row.expected.low:.4g} to {row.expected.high:.4g}"
        print(f"{row.expected.task}, {row.expected.metric}: {row.actual:.4g}, {where} {of} ({row.error:+.4g})")
    for line in notes:
        print(f"- {line}")
    print(file)


def _grokking(options: argparse.Namespace) -> None:
    from alignlab.studies.grokking import NAMES, grokking  # after --help
    from alignlab.studies.reading.tables import logged

    if not options.run_dir.is_dir():
        raise ValueError(f"{options.run_dir} is no directory")
    if bool(options.train) != bool(options.val):
        raise ValueError("--train and --val belong together")
    told = logged(options.run_dir)
    said = grokking(told, options.train, options.val)
    if said is None:
        wanted = (
            f"{options.train} and {options.val}" if options.train else " nor ".join(f"{a} and {b}" for a, b in NAMES)
        )
        there = ", ".join(sorted(told.curves)) or "nothing"
        raise ValueError(f"{options.run_dir} has logged no curves {wanted} of four points; there is: {there}")
    print(said.text())


def _overoptimisation(options: argparse.Namespace) -> None:
    from alignlab.scaling.overoptimisation import optimised, read  # after --help
    from alignlab.scaling.reading.places import runs_with
    from alignlab.scaling.showing import optimised as page

    runs = runs_with(options.runs, lambda folder: (folder / "metrics.csv").is_file())
    told = optimised(read(runs, options.kl, options.proxy, options.gold))
    print(told.text)
    print(page.write(told, options.output))
