"""The `alignlab` command: what isn't training."""

import argparse
import sys
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(prog="alignlab", description="Tools around training runs.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    convert = commands.add_parser(
        "convert",
        help="published ALBEF checkpoints from and to this project's layout",
        description="From the published ALBEF pre-training layout to weights that `python train.py model=albef "
        "ckpt_path=...` starts from, and from a run's checkpoint back to the published layout.",
    )
    convert.add_argument("direction", choices=["from-albef", "to-albef"])
    convert.add_argument("source", type=Path, help="published .pth file, or a run directory or its .ckpt file")
    convert.add_argument("target", type=Path, help="file to write")
    convert.add_argument(
        "--grid", type=int, nargs=2, metavar=("ROWS", "COLUMNS"), help="patches of the new picture size"
    )
    convert.set_defaults(run=_convert)
    best = commands.add_parser(
        "best",
        help="the best checkpoint of a run by any metric",
        description="Prints the checkpoint with the best value of a validation metric among those that a run has kept "
        "(callbacks.checkpoint.keep_best=-1 keeps all), then the others; its path alone goes to standard output.",
    )
    best.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    best.add_argument("--metric", default="val/loss", help="name in metrics.csv; default: val/loss")
    best.add_argument("--mode", choices=["min", "max"], default="min", help="whether small or large is good")
    best.set_defaults(run=_best)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Runs a sub-command; 2 and a line on standard error for bad input."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _convert(options: argparse.Namespace) -> None:
    import torch  # after --help

    from alignlab.models.albef_checkpoint import AlbefState, from_official, to_official

    source = options.source / "checkpoints" / "last.ckpt" if options.source.is_dir() else options.source
    loaded = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    if options.direction == "from-albef":
        grid = tuple(options.grid) if options.grid else None
        written = {"state_dict": from_official(loaded, grid=grid).of_system()}
    elif "state_dict" not in loaded:
        raise ValueError(f"{source} is no checkpoint of a run: it has no state_dict")
    else:
        written = {"model": to_official(AlbefState.from_system(loaded["state_dict"]))}
    temporary = options.target.with_name(f".{options.target.name}")
    torch.save(written, temporary)
    temporary.replace(options.target)
    print(f"{options.target}: {sum(len(state) for state in written.values())} tensors")


def _best(options: argparse.Namespace) -> None:
    from alignlab.checkpoint_folder import best_first, read_index

    folder = options.run_dir / "checkpoints"
    entries = read_index(folder)
    ranked = best_first(entries, options.metric, options.mode)
    if not ranked:
        known = sorted({name for entry in entries for name in entry.metrics})
        raise ValueError(
            f"no checkpoint in {folder} has --metric {options.metric}; there are: {', '.join(known) or 'none'}"
        )
    print(folder / ranked[0].file)
    for entry in ranked:
        print(f"{entry.metrics[options.metric]:.6g}  {entry.file}", file=sys.stderr)
