"""Trains what a config composes: `python train.py model=albef trainer=ddp`. `--help` lists the groups.

Exit codes: 0 done; 2 bad input or config; 130 stopped by Ctrl-C, 143 by SIGTERM, 138 by SIGUSR1 (128 + the signal's
number); 1 anything else (also a run whose loss is not finite, a full disk, a rank that died).
"""

from pathlib import Path

from alignlab.runs.program import main

if __name__ == "__main__":
    main("train", Path(__file__).resolve().parent / "conf")
