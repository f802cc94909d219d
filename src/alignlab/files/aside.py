"""Records that can't be read are set aside: they never stop a run that can go on."""

import os
from itertools import count
from pathlib import Path


def set_aside(path: Path) -> Path:
    """Gives a damaged file or folder another name, `<name>.damaged`, and returns that; nothing is deleted."""
    names = (path.with_name(f"{path.name}.damaged{'' if number == 1 else number}") for number in count(1))
    target = next(name for name in names if not os.path.lexists(name))
    os.replace(path, target)
    return target
