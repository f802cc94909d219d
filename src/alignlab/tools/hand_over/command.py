"""`alignlab hand-over trl | verl | openrlhf`: what other libraries go on from."""

import argparse
from pathlib import Path


def add(commands: "argparse._SubParsersAction") -> None:
    """Adds the command to a parser."""
    command = commands.add_parser(
        "hand-over",
        help="a run of PPO or GRPO as what TRL, verl or OpenRLHF go on from",
        description="Writes a folder with prompts, weights, rewards that need no alignlab, and a program with the "
        "run's settings in the library's words (docs/hand_over.md).",
    )
    command.add_argument("library", choices=["trl", "verl", "openrlhf"])
    command.add_argument("source", metavar="run", type=Path, help="run directory of model=ppo, grpo or a preset")
    command.add_argument("folder", type=Path, help="a new folder")
    command.add_argument("--plugins", nargs="*", default=[], metavar="NAME", help="code of yours that the run names")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from alignlab.tools.hand_over.writing import hand_over  # after --help

    print(hand_over(options.library, options.source, options.folder, options.plugins))
