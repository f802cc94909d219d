"""Trains the small built-in model that another run begins from, in a process of its own."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from alignlab.launch.processes import run_in_turn, this_program
from alignlab.launch.rank_watch import ended_how
from alignlab.launch.signals import Inbox, Interrupted
from alignlab.runs.chain import StageFailed


@dataclass(frozen=True)
class Small:
    """A training from nothing on built-in data.

    Attributes:
        words: its command line.
        takes: how long, measured on 2 CPU cores.
    """

    words: tuple[str, ...]
    takes: str

    def __str__(self) -> str:
        return f"training the small built-in one first ({' '.join(self.words)}; {self.takes} on 2 CPU cores)"


SMALL_SFT = Small(("experiment=rlhf_movies_sft",), "about 3 minutes")
SMALL_REWARD = Small(("experiment=rlhf_movies_reward",), "about 4 minutes")


def make(small: Small, key: str) -> None:
    """Trains it; its output is this program's, and a signal is passed on and waited for.

    Raises:
        StageFailed: it came to another end than a good one, which it has printed.
        Interrupted: a signal asked for the end.
    """
    with Inbox(lambda message: print(message, file=sys.stderr, flush=True)) as inbox:
        inbox.deferred = True
        code = run_in_turn([*training_program(this_program()), *small.words], inbox)
        if inbox.received:
            raise Interrupted(inbox.received)
    if code:
        raise StageFailed(f"{key}: {' '.join(small.words)} {ended_how(code)}", "failed", code if code > 0 else 1)


def training_program(program: Sequence[str]) -> list[str]:
    """The command of train.py beside that of infer.py, or itself."""
    *start, last = program
    if last.endswith("infer.py"):
        last = last.removesuffix("infer.py") + "train.py"
    return [*start, last.removesuffix(".infer") + ".train" if last.endswith(".infer") else last]
