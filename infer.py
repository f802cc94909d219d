"""Runs a trained model: `python infer.py task=generate model=DIR prompt_text='...'`. `--help` lists the groups.

Exit codes: 0 done, 2 bad input or config, 130 stopped by Ctrl-C, 143 by SIGTERM (what is finished is
kept), 1 anything else.
"""

from pathlib import Path

from alignlab.runs.program import main

if __name__ == "__main__":
    main("infer", Path(__file__).resolve().parent / "conf")
