"""train.py and infer.py as the package carries them: `alignlab train`, `alignlab infer`, no checkout needed."""

import os
import sys
from pathlib import Path

from alignlab.configs.folders import is_own, packaged


def run(program: str) -> None:
    """Goes on as the program, in this process.

    Ranks and jobs of a sweep are started by `sys.argv[0]`, which is made the program's own file. Modules of the working
    directory (a reward of one's own) can be imported, as they can beside train.py.
    """
    from alignlab.runs.program import main

    sys.argv[0] = str(Path(__file__).with_name(f"{program}.py"))
    sys.modules["__main__"].__spec__ = None  # of `python -m`, which would be started again without the program's name
    if is_own():
        sys.path.append(os.getcwd())  # at the end: no file of it is taken for a package's
    main(program, packaged())
