"""`assets.lock.json`: which commit of each repository was meant, and the size and hash of each of its files."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from alignlab.files.writing import write_text
from alignlab.hub.assets import Asset
from alignlab.hub.endpoint import Repository
from alignlab.hub.remote_file import RemoteFile, check_paths


@dataclass(frozen=True)
class Locked:
    """One repository of the lock file."""

    asset: Asset
    commit: str
    files: tuple[RemoteFile, ...]  # those that were fetched
    dest: str | None = None  # a plain folder; None: the hub's cache


class Lock:
    """The lock file's entries, by repository and revision."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries: dict[str, Locked] = {}
        if file.exists():
            try:
                rows = json.loads(file.read_text(encoding="utf-8"))["repositories"]
                self.entries = {_key(entry.asset): entry for entry in map(_entry, rows)}
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise ValueError(
                    f"{file} is no lock file of alignlab fetch ({error}); move it away to begin anew"
                ) from None

    def of(self, asset: Asset) -> Locked | None:
        return self.entries.get(_key(asset))

    def keep(self, repository: Repository, files: Iterable[RemoteFile], dest: Path | None) -> None:
        """Notes a repository and writes the file; nobody sees half of it."""
        entry = Locked(repository.asset, repository.commit, tuple(files), str(dest.absolute()) if dest else None)
        self.entries[_key(entry.asset)] = entry
        rows = [asdict(entry) for _, entry in sorted(self.entries.items())]
        write_text(self.file, json.dumps({"version": 1, "repositories": rows}, indent=1) + "\n")


def _key(asset: Asset) -> str:
    return f"{asset.name}@{asset.revision}"


def _entry(row: dict) -> Locked:
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in row["asset"].items()}
    files = tuple(RemoteFile(**file) for file in row["files"])
    asset = Asset(**fields)
    check_paths(files, asset.name)  # a lock file may be a stranger's
    return Locked(asset, row["commit"], files, row["dest"])
