"""`alignlab new my_project`: a folder with parts of one's own that trains, to change into what one needs."""

import keyword
import re
import shutil
import sys
from pathlib import Path

from alignlab.configs import sources
from alignlab.files.writing import write_folder

TEMPLATE = Path(__file__).resolve().parents[1] / "template"
_NAME = "my_project"  # in the template's files and their names


def new(target: Path) -> list[Path]:
    """Writes the project; nothing is left of it if that fails.

    Args:
        target: a folder that isn't there yet; its name is that of the package.

    Returns:
        The files, relative to the folder.

    Raises:
        ValueError: there is something of that name, or Python can't import it by that name.
    """
    name = target.name
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} can't be a package's name: small letters, digits and _ can")
    if target.exists():
        raise ValueError(f"{target} is there already; take another name, or remove it")
    if name in sys.stdlib_module_names or sources.spec_of(name) is not None:
        raise ValueError(f"there is a package {name} already; take another name")
    write_folder(target, lambda folder: _fill(folder, name))
    return sorted(file.relative_to(target) for file in target.rglob("*") if file.is_file())


def _fill(folder: Path, name: str) -> None:
    for file in sorted(TEMPLATE.rglob("*")):
        if file.is_dir() or file.suffix not in (".py", ".md", ".toml", ".yaml"):
            continue
        made = folder / str(file.relative_to(TEMPLATE)).replace(_NAME, name)
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(file.read_text(encoding="utf-8").replace(_NAME, name), encoding="utf-8")
        shutil.copymode(file, made)
