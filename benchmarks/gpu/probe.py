# ruff: noqa: E402  (its own words are taken off the command line first)
"""train.py with torch's synchronisation warnings on within training steps from the fourth to the last but one; counts them by place, to a file.

python benchmarks/gpu/probe.py FILE model=clip trainer=gpu ...
"""

import collections
import json
import runpy
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(sys.argv.pop(1)).resolve()
FIRST = 3  # steps that build things up
sys.argv[0] = "train.py"
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]


import alignlab  # noqa: F401  before lightning
from pretend_cuda.log import where

import torch
from lightning.pytorch.loops import training_epoch_loop

FOUND: collections.Counter = collections.Counter()
LOOP = training_epoch_loop._TrainingEpochLoop
PLAIN_ADVANCE = LOOP.advance


def noted(message: object, *_: object, **__: object) -> None:
    if "called a synchronizing" in str(message):  # not what torch says of the mode itself
        FOUND[where()] += 1


class Steps:
    """How many were watched; the last step of a run saves and isn't."""

    taken = watched = 0


def advance(loop: object, *arguments: object, **settings: object) -> object:
    Steps.taken += 1
    last = loop.trainer.max_steps
    if Steps.taken <= FIRST or Steps.taken >= last or not torch.cuda.is_available():
        return PLAIN_ADVANCE(loop, *arguments, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = noted
        torch.cuda.set_sync_debug_mode("warn")
        try:
            return PLAIN_ADVANCE(loop, *arguments, **settings)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            Steps.watched += 1


LOOP.advance = advance
try:
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
finally:
    TARGET.write_text(json.dumps({"steps": Steps.watched, "waits": dict(FOUND)}))
