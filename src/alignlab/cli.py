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
