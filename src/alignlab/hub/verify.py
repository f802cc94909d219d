"""Whether what lies here is what the lock file says, without a network."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from alignlab.hub.lock import Locked
from alignlab.hub.places import Folder, HubCache, Place, place_of
from alignlab.hub.state import State, state


class Finding(NamedTuple):
    """What is the case with one file."""

    repo: str
    path: str
    state: State
    file: Path


def where(entry: Locked) -> Place:
    """Where a repository of the lock file lies."""
    return Folder(Path(entry.dest)) if entry.dest else place_of(entry.asset, entry.commit, None, False)


def verify(entry: Locked) -> Iterator[Finding]:
    """Each file of a repository: hashed whole; then what lies beside them and isn't in the lock file."""
    place = where(entry)
    for file in entry.files:
        path = place.path_of(file)
        yield Finding(entry.asset.name, file.path, state(file, path), path)
    root = place.snapshot if isinstance(place, HubCache) else place.root
    known = {file.path for file in entry.files}
    for path in sorted(root.rglob("*")) if root.is_dir() else ():
        name = path.relative_to(root).as_posix()
        if path.is_file() and name not in known and not name.endswith((".part", ".part.json", ".part.lock")):
            yield Finding(entry.asset.name, name, "extra", path)
