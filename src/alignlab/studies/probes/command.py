"""`alignlab probe`: a batch size that was measured, and how far a rate is from breaking."""

import argparse
import json
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

from alignlab.files.writing import write_text


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the `alignlab` program."""
    probe = commands.add_parser("probe", help="short runs before a study: batch, stability")
    parts = probe.add_subparsers(required=True, metavar="WHAT")
    batch = parts.add_parser(
        "batch",
        help="throughput by powers of two until it is saturated or memory is out; a size that was measured",
        description="WORDS are those of train.py; each size is a process of its own.",
    )
    batch.add_argument("--smallest", type=int, default=8, help="default: 8")
    batch.add_argument("--largest", type=int, default=1024, help="default: 1024")
    batch.set_defaults(run=_batch)
    stability = parts.add_parser(
        "stability",
        help="short runs at 1, 2, 5 and 10 times the rate; advice on warm-up and clipping",
        description="WORDS are those of train.py; optim.lr is the rate that is multiplied.",
    )
    stability.set_defaults(run=_stability)
    for part, steps in ((batch, 20), (stability, 100)):
        part.add_argument("words", nargs="*", metavar="WORDS", help="model=clip data=emoji_scenes ...")
        part.add_argument("--steps", type=int, default=steps, help=f"of each run; default: {steps}")
        part.add_argument("--program", type=Path, help="train.py; default: that of this directory, else the package's")
        part.add_argument("--output", type=Path, metavar="FOLDER", help="keep the runs and report.json there")


def _batch(options: argparse.Namespace) -> None:
    from alignlab.studies.probes import batch  # after --help

    with _place(options.output) as folder:
        sizes = (options.smallest, options.largest)
        told = batch.measure(_program(options), options.words, Path(folder), options.steps, *sizes)
        said = batch.advice(told)
        _end(options.output, said, [asdict(each) for each in told], recommended=batch.recommended(told).size)


def _stability(options: argparse.Namespace) -> None:
    from alignlab.studies.probes import runs, stability  # after --help

    program = _program(options)
    rate, clip = (runs.setting(program, options.words, key) for key in ("optim.lr", "trainer.gradient_clip_val"))
    steps = runs.setting(program, options.words, "trainer.max_steps")
    with _place(options.output) as folder:
        told = stability.try_rates(program, options.words, Path(folder), float(rate), options.steps)
        said = stability.advice(told, clip, steps if isinstance(steps, int) and steps > 0 else None)
        _end(options.output, said, [asdict(each) for each in told])


def _program(options: argparse.Namespace) -> list[str]:
    import sys

    from alignlab.studies.probes.runs import default_program

    return default_program() if options.program is None else [sys.executable, str(options.program)]


def _place(output: Path | None) -> AbstractContextManager[str]:
    if output is None:
        return tempfile.TemporaryDirectory(prefix="probe_")
    output.mkdir(parents=True, exist_ok=True)
    return nullcontext(str(output))


def _end(output: Path | None, said: list[str], rows: list[dict], **more: object) -> None:
    for each in said:
        print(each)
    if output is not None:
        write_text(output / "report.json", json.dumps({"advice": said, "runs": rows, **more}, indent=2) + "\n")
