"""Several repositories at once: resolved, planned, fetched in parallel, each by itself."""

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from alignlab.hub.assets import Asset
from alignlab.hub.download import Count, Patience, download
from alignlab.hub.endpoint import Endpoint, Repository
from alignlab.hub.errors import DiskFull, HubError, Unreachable
from alignlab.hub.lock import Lock, Locked
from alignlab.hub.needed import wanted
from alignlab.hub.places import Folder, HubCache, Place, place_of
from alignlab.hub.remote_file import RemoteFile
from alignlab.hub.verify import where


@dataclass
class Plan:
    """One repository: what is wanted of it, what lies here already, what went wrong."""

    asset: Asset
    repository: Repository | None = None
    files: list[RemoteFile] = field(default_factory=list)
    place: Place | None = None
    error: str | None = None

    @property
    def todo(self) -> list[RemoteFile]:
        """Files that aren't here with the right size; `get` looks at the bytes of the others too."""
        return [file for file in self.files if not _here(self.place, file)] if self.place else []

    def row(self) -> dict[str, object]:
        """One line of the table."""
        said = self.repository
        return {
            "repository": f"{self.asset.name}@{self.asset.revision}",
            "commit": said.commit[:12] if said else "",
            "files": f"{len(self.files)} of {len(said.files)}" if said else "",
            "MB": f"{self.size / 1e6:.1f}",
            "to come, MB": f"{self.missing / 1e6:.1f}",
            "licence": (said.licence if said else None) or "not said",
            "gated": bool(said and said.gated),
            "state": "failed" if self.error else "here" if not self.todo else "to come",
        }

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        """Bytes still to come."""
        return sum(file.size for file in self.todo)


def plan(
    assets: Sequence[Asset],
    servers: Sequence[Endpoint],
    lock: Lock,
    dest: Path | None,
    *,
    update: bool = False,
    patience: Patience | None = None,
) -> list[Plan]:
    """Asks for commits and files: one commit for each, which the lock file decides if it knows the repository.

    Args:
        update: what the lock file knows is asked for anew.
    """
    patience = patience or Patience()
    return [_plan(asset, servers, lock, dest, update, patience, len(assets) > 1) for asset in assets]


def _plan(
    asset: Asset,
    servers: Sequence[Endpoint],
    lock: Lock,
    dest: Path | None,
    update: bool,
    patience: Patience,
    several: bool,
) -> Plan:
    made = Plan(asset)
    locked = None if update else lock.of(asset)
    try:
        pinned = asset if locked is None else Asset(asset.repo, asset.type, locked.commit)
        said = _described(pinned, servers, patience)
        made.repository = Repository(asset, said.commit, said.files, said.licence, said.gated)
        made.files = wanted(said.files, asset)
        made.place = place_of(asset, said.commit, dest, several)
    except (HubError, ValueError) as error:
        made.error = str(error)
    return made


def _described(asset: Asset, servers: Sequence[Endpoint], patience: Patience) -> Repository:
    errors = []
    for server in servers:
        for attempt in range(patience.tries):
            try:
                return server.describe(asset)
            except Unreachable as error:
                errors.append(str(error))
                if attempt + 1 < patience.tries:
                    patience.pause(attempt, error.wait)
            except HubError as error:
                errors.append(str(error))
                break
    raise HubError("; ".join(dict.fromkeys(errors)))


def check_room(plans: Sequence[Plan], dest: Path | None) -> None:
    """Raises ValueError before anything is fetched if the disk can't hold it."""
    need = sum(plan.missing for plan in plans)
    folder = dest or next((p.place.root for p in plans if isinstance(p.place, HubCache)), Path())
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if need > free:
        raise ValueError(
            f"{need / 1e9:.2f} GB are to come and {folder} has {free / 1e9:.2f} GB left; nothing was fetched"
        )


def get(
    plans: Sequence[Plan],
    servers: Sequence[Endpoint],
    lock: Lock,
    dest: Path | None,
    *,
    workers: int = 8,
    patience: Patience | None = None,
    count: Count = lambda size: None,
) -> None:
    """Fetches all plans without an error and notes them in the lock file. A repository that fails says so in its
    `error`, and the others go on.
    """
    _fetch(plans, servers, workers, patience or Patience(), count)
    for made in plans:
        if not made.error and made.place is not None and made.repository is not None:
            made.place.settle()
            lock.keep(made.repository, made.files, made.place.root if isinstance(made.place, Folder) else None)


def _fetch(plans: Sequence[Plan], servers: Sequence[Endpoint], workers: int, patience: Patience, count: Count) -> None:
    """Files side by side. Ctrl-C ends after the blocks at hand; the same command goes on from there."""
    stop = threading.Event()

    def one(made: Plan, file: RemoteFile) -> None:
        if stop.is_set() or made.error or made.place is None or made.repository is None:
            return
        try:
            download(file, made.place.bytes_of(file), made.asset, made.repository.commit, servers, patience, told)
            made.place.show(file)
        except DiskFull as error:
            stop.set()
            made.error = str(error)
        except (HubError, OSError) as error:
            made.error = made.error or str(error)

    def told(size: int) -> None:
        if stop.is_set() and size > 0:
            raise HubError("stopped before it was whole; the same command goes on")
        count(size)

    # Large files first, so that none is left alone at the end.
    todo = sorted(((made, file) for made in plans for file in made.files), key=lambda each: -each[1].size)
    with ThreadPoolExecutor(workers) as pool:
        pending = {pool.submit(one, *each) for each in todo}
        try:
            while pending:
                # with a time limit, else Ctrl-C waits too; not for each, since a wait looks at all that are left
                done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def repair(entry: Locked, servers: Sequence[Endpoint], patience: Patience, workers: int) -> str | None:
    """Fetches again what a repository of the lock file lacks; returns what went wrong."""
    place = where(entry)
    said = Repository(entry.asset, entry.commit, entry.files, None, False)
    made = Plan(entry.asset, said, list(entry.files), place)
    _fetch([made], servers, workers, patience, lambda size: None)
    return made.error


def _here(place: Place, file: RemoteFile) -> bool:
    path = place.path_of(file)
    return path.is_file() and path.stat().st_size == file.size
