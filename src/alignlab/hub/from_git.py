"""A clone that git made without LFS: the files that its pointers stand for are fetched into it."""

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from alignlab.hub.assets import Asset, named
from alignlab.hub.download import Patience, download
from alignlab.hub.endpoint import Endpoint
from alignlab.hub.state import pointers


def origin(clone: Path) -> tuple[Asset, str]:
    """Repository and commit of a clone, as git tells them. Raises ValueError where it is none of a hub's."""
    if not (clone / ".git").exists():
        raise ValueError(f"{clone} is no clone: it has no .git")
    url, commit = (_git(clone, *words) for words in (("remote", "get-url", "origin"), ("rev-parse", "HEAD")))
    match = re.search(r"(?:^|[/:])((?:datasets/)?[\w.-]+/[\w.-]+?)(?:\.git)?/?$", url)
    if match is None:
        raise ValueError(f"{clone}: {url} names no repository")
    return named(match[1]), commit


def smudge(clone: Path, servers: Sequence[Endpoint], patience: Patience, count: Callable[[int], None]) -> list[str]:
    """Replaces all pointers by their files and returns their paths. Raises HubError, as `download` does."""
    asset, commit = origin(clone)
    done = []
    for file in list(pointers(clone)):
        download(file, clone / file.path, asset, commit, servers, patience, count)
        done.append(file.path)
    return done


def _git(clone: Path, *words: str) -> str:
    try:
        return subprocess.run(["git", "-C", clone, *words], capture_output=True, text=True, check=True).stdout.strip()
    except FileNotFoundError:
        raise ValueError("git isn't installed") from None
    except subprocess.CalledProcessError as error:
        raise ValueError(f"{clone}: git {' '.join(words)}: {error.stderr.strip()}") from None
