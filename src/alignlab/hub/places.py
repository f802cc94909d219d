"""Where fetched files lie: in the cache that `from_pretrained` and `datasets` read offline, or in a plain folder."""

import os
import shutil
from pathlib import Path
from typing import Protocol

from alignlab.hub.assets import Asset
from alignlab.hub.remote_file import RemoteFile


class Place(Protocol):
    """A layout of one repository's files."""

    def bytes_of(self, file: RemoteFile) -> Path:
        """Where the bytes of a file are downloaded to."""

    def path_of(self, file: RemoteFile) -> Path:
        """Where a reader looks for the file."""

    def show(self, file: RemoteFile) -> None:
        """Lets readers find bytes that are whole under the file's path."""

    def settle(self) -> None:
        """Called when all files are there."""


class HubCache:
    """huggingface_hub's cache: `blobs/<hash>` once, `snapshots/<commit>/<path>` links to them, `refs/<revision>`.

    Args:
        root: the cache, as HF_HUB_CACHE names it.
        asset, commit: whose files.
    """

    def __init__(self, root: Path, asset: Asset, commit: str) -> None:
        self.root, self.revision, self.commit = root, asset.revision, commit
        self.folder = root / f"{asset.type}s--{asset.repo.replace('/', '--')}"
        self.snapshot = self.folder / "snapshots" / commit

    def bytes_of(self, file: RemoteFile) -> Path:
        """The blob; where another repository of the cache holds the same large bytes, a link to those."""
        blob = self.folder / "blobs" / file.digest
        if len(file.digest) == 64 and not blob.exists():
            for twin in self.root.glob(f"*--*/blobs/{file.digest}"):
                blob.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(twin, blob)
                except OSError:  # another file system, or one without links
                    continue
                break
        return blob

    def path_of(self, file: RemoteFile) -> Path:
        return self.snapshot / file.path

    def show(self, file: RemoteFile) -> None:
        path, blob = self.path_of(file), self.folder / "blobs" / file.digest
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.link")
        temporary.unlink(missing_ok=True)
        try:
            os.symlink(os.path.relpath(blob, path.parent), temporary)
        except OSError:  # no links here
            shutil.copyfile(blob, temporary)
        os.replace(temporary, path)

    def settle(self) -> None:
        if self.revision != self.commit:
            ref = self.folder / "refs" / self.revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(self.commit)


class Folder:
    """Files under their own paths in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def bytes_of(self, file: RemoteFile) -> Path:
        return self.root / file.path

    def path_of(self, file: RemoteFile) -> Path:
        return self.root / file.path

    def show(self, file: RemoteFile) -> None:
        pass

    def settle(self) -> None:
        pass


def place_of(asset: Asset, commit: str, dest: Path | None, several: bool) -> Place:
    """The hub's cache, or `dest`, with a folder for each repository where there are several."""
    if dest is not None:
        return Folder(dest / asset.name if several else dest)
    from huggingface_hub.constants import HF_HUB_CACHE

    return HubCache(Path(HF_HUB_CACHE), asset, commit)
