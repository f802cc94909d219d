"""train.py whose jobs are `tiny_study_trial.py`."""

import sys
from pathlib import Path

from alignlab.launch import processes
from alignlab.runs.program import main

SUPPORT = Path(__file__).resolve().parent
processes.this_program = lambda: [sys.executable, str(SUPPORT / "tiny_study_trial.py")]  # read when plug-ins are loaded

if __name__ == "__main__":
    main("train", SUPPORT.parents[1] / "conf")
