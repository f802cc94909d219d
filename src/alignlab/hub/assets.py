"""What is to be fetched: repositories by name or from a list in conf/assets."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml

Kind = Literal["model", "dataset"]
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Asset:
    """One repository, and which of its files.

    Args:
        repo: `organisation/name`, or a bare name as old repositories have it.
        type: model or dataset.
        revision: branch, tag or commit.
        include, exclude: patterns of paths as the shell's (`*.json`); without `include`, of a model what
            `from_pretrained` needs, of a data set everything.
        whole: every file, whatever it is for.
        pickle: weights that only a pickle holds are taken; loading them runs what is in them.
        code: Python files too; `trust_remote_code` runs them.
    """

    repo: str
    type: Kind = "model"
    revision: str = "main"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    whole: bool = False
    pickle: bool = False
    code: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.repo) or ".." in self.repo:
            raise ValueError(f"{self.repo!r} is no repository: organisation/name is expected")
        if self.type not in ("model", "dataset"):
            raise ValueError(f"type of {self.repo} is {self.type!r}; there are model and dataset")

    @property
    def name(self) -> str:
        """How messages and the lock file call it: `organisation/name`, `datasets/organisation/name`."""
        return f"datasets/{self.repo}" if self.type == "dataset" else self.repo


def named(word: str) -> Asset:
    """`organisation/name`, `datasets/organisation/name`, each with `@revision` if not main."""
    repo, _, revision = word.partition("@")
    kind: Kind = "dataset" if repo.startswith("datasets/") else "model"
    return Asset(repo.removeprefix("datasets/").removeprefix("models/"), kind, revision or "main")


def gather(words: Iterable[str], folders: Sequence[Path], settings: Mapping[str, Any]) -> list[Asset]:
    """Assets of the words of a command line: repositories, YAML files, and names of lists in `folders`.

    Args:
        settings: fields of `Asset` that hold for all of them; an empty value says nothing.

    Raises:
        ValueError: a list that isn't there or isn't one; names what there is.
    """
    assets = []
    for word in words:
        file = next((f for f in (folder / f"{word}.yaml" for folder in folders) if f.is_file()), None)
        if word.endswith((".yaml", ".yml")):
            file = Path(word)
        assets += [named(word)] if file is None else listed(file)
    given = {key: value for key, value in settings.items() if value}
    return list(dict.fromkeys(replace(asset, **given) for asset in assets))


def listed(file: Path) -> list[Asset]:
    """Assets of a YAML list: names as on the command line, or mappings with the fields of `Asset`."""
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{file}: {error}") from None
    if isinstance(entries, Mapping):
        entries = entries.get("assets")
    if not isinstance(entries, list):
        raise ValueError(f"{file}: a list of repositories under `assets:` is expected")
    return [_entry(entry, f"{file}, entry {number}") for number, entry in enumerate(entries, 1)]


def _entry(entry: object, where: str) -> Asset:
    if isinstance(entry, str):
        return named(entry)
    if not isinstance(entry, Mapping) or "repo" not in entry:
        raise ValueError(f"{where}: neither a name nor a mapping with `repo`")
    known = [field.name for field in fields(Asset)]
    for key in entry:
        if key not in known:
            near = get_close_matches(str(key), known, 1)
            raise ValueError(f"{where}: no field {key!r}" + (f"; {near[0]}?" if near else f"; there are {known}"))
    values = {
        key: tuple([v] if isinstance(v, str) else v) if key in ("include", "exclude") else v for key, v in entry.items()
    }
    try:
        return Asset(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
