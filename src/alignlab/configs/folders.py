"""The folders that configs are composed from: conf/ of the working directory, plugins' own, the program's, in this
order.

Nobody else has a root of its own: who lists choices, composes or explains asks here.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

import alignlab
from alignlab.launch.environment import launch

# What lies in a folder that somebody may have sent: a run, an export, an adapter.
_OF_RUNS = ("config.yaml", "result.json", "checkpoints", "config.json", "adapter_config.json")
_DOTTED = re.compile(r"alignlab(\.\w+)+")
_first: tuple[Path, ...] = ()
_main: Path | None = None


def packaged() -> Path:
    """conf/ as the package carries it; in a checkout that is the checkout's."""
    return (Path(alignlab.__file__).parent / "conf").resolve()


def use(configs: Path, plugins: Sequence[Path] = ()) -> None:
    """Says what this program composes from, beside conf/ of the working directory.

    Args:
        configs: the program's own.
        plugins: folders of plugins.

    Raises:
        ValueError: one holds a file that can't be read, or a plugin's has the name of another's.
    """
    global _first, _main
    _main = configs.resolve()
    own = [Path("conf").resolve()] if Path("conf").is_dir() else []
    if own and own[0] != _main and not is_own():
        own = []
        if launch().rank == 0:
            print(
                "conf/ isn't read here: this folder is a run's or a model's, and may be somebody else's",
                file=sys.stderr,
            )
    apart = [folder.resolve() for folder in plugins]
    named = {path: _main for path in _files(_main)}
    for folder in dict.fromkeys(apart):
        for path in () if folder in own else _files(folder):
            if path in named:
                other = "one of alignlab's own" if named[path] == _main else f"{named[path] / path}"
                raise ValueError(f"plugins: {folder / path} has the name of {other}; give it another")
            named[path] = folder
    _first = tuple(folder for folder in dict.fromkeys([*own, *apart]) if folder != _main)
    for folder in _first:
        for path in _files(folder):
            _content(folder / path)
    if _first and _Folders not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(_Folders)


def main() -> Path:
    """The program's own folder, which is ours."""
    return packaged() if _main is None else _main


def folders() -> tuple[Path, ...]:
    """All of them; what is found first counts."""
    return (*_first, main())


def choices(group: str) -> list[str]:
    """What there is to choose from for a group: `model/net`."""
    return sorted({file.stem for folder in folders() for file in (folder / group).glob("*.yaml")})


def groups() -> list[str]:
    """All groups, those below others as `model/net`."""
    return sorted({str(d.relative_to(folder)) for folder in folders() for d in folder.rglob("*") if d.is_dir()})


@cache
def targets(folder: Path) -> dict[str, set[str]]:
    """Names that the files of a folder give -> the keys that they set beside them."""
    named: dict[str, set[str]] = {}

    def note(content: Any) -> None:
        if isinstance(content, Mapping):
            if isinstance(content.get("_target_"), str):
                named.setdefault(content["_target_"], set()).update(map(str, content))
            for name, value in content.items():
                if isinstance(value, str) and _DOTTED.fullmatch(value):  # a part's part: `source`, `rows`
                    named.setdefault(value, set())
                if name != "hydra":
                    note(value)

    for file in _files(folder):
        if file.parts[0] != "hydra":
            note(_content(folder / file))
    return named


def is_own() -> bool:
    """Whether the working directory is the user's to have code in, and no run or model that somebody may have sent."""
    return not any(Path(name).exists() for name in _OF_RUNS)


class _Folders(SearchPathPlugin):
    """Tells Hydra; registered by `use`, so that other programs' Hydra never meets it."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in _first:
            search_path.prepend("alignlab", f"file://{folder}", "main")


def _files(folder: Path) -> Iterable[Path]:
    return sorted(file.relative_to(folder) for file in folder.rglob("*.yaml"))


def _content(file: Path) -> Any:
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file} can't be read ({' '.join(str(error).split())[:200]})") from error
