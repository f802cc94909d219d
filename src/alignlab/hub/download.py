"""One file, from the first byte to the right name: resumed where another process was killed, hashed while it comes."""

import errno
import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from alignlab.files.writing import write_text
from alignlab.hub.assets import Asset
from alignlab.hub.endpoint import Endpoint, Response
from alignlab.hub.errors import Damaged, DiskFull, HubError, Unreachable
from alignlab.hub.remote_file import RemoteFile
from alignlab.hub.state import state

SMALL = 2**20  # below it a part isn't worth a note beside it: it is fetched again
Count = Callable[[int], None]


class Patience:
    """How often and how long a file is tried.

    Args:
        tries: of each endpoint.
        deadline: seconds from now until nothing more is tried.
    """

    def __init__(self, tries: int = 5, deadline: float = float("inf")) -> None:
        self.tries, self._end = tries, time.monotonic() + deadline

    def pause(self, attempt: int, asked: float | None) -> None:
        """Waits twice as long after each try, a little more or less so that many processes don't return together; never
        less than the server asked for. Raises HubError where that is past the deadline.
        """
        seconds = max(asked or 0.0, min(30.0, 0.25 * 2**attempt) * random.uniform(0.7, 1.3))
        if time.monotonic() + seconds > self._end:
            raise HubError(f"the deadline would pass in the next wait of {seconds:.0f} s")
        time.sleep(seconds)


def download(
    file: RemoteFile,
    target: Path,
    asset: Asset,
    commit: str,
    servers: Sequence[Endpoint],
    patience: Patience,
    count: Count,
) -> None:
    """Has a file's right bytes at `target`. Its part lies beside it, under `.part`, until they are whole.

    Args:
        count: is told the number of bytes that came, or lie there already; negative where some were thrown away.

    Raises:
        HubError: no endpoint has it; Damaged: none has the right bytes; DiskFull.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with FileLock(f"{part}.lock"):  # a second process waits, and finds it done
        if state(file, target) == "ok":  # hashed, not believed: a byte may have turned over since
            count(file.size)
        else:
            _from_any(file, part, asset, commit, servers, patience, count)
            _note(part).unlink(missing_ok=True)
            os.replace(part, target)
    Path(f"{part}.lock").unlink(missing_ok=True)


def _from_any(
    file: RemoteFile,
    part: Path,
    asset: Asset,
    commit: str,
    servers: Sequence[Endpoint],
    patience: Patience,
    count: Count,
) -> None:
    errors: list[HubError] = []
    for server in servers:
        for attempt in range(patience.tries):
            try:
                return _attempt(file, part, asset, commit, server, count)
            except DiskFull:
                raise
            except Unreachable as error:
                errors.append(error)
                if attempt + 1 < patience.tries:
                    patience.pause(attempt, error.wait)
            except Damaged as error:  # once more, from its first byte; then the next endpoint
                errors.append(error)
                if sum(isinstance(e, Damaged) for e in errors) % 2 == 0:
                    break
            except HubError as error:
                errors.append(error)
                break
    kind = Damaged if isinstance(errors[-1], Damaged) else HubError
    raise kind("; ".join(dict.fromkeys(map(str, errors))))


def _attempt(file: RemoteFile, part: Path, asset: Asset, commit: str, server: Endpoint, count: Count) -> None:
    have, etag = _resumable(part, file)
    headers = {}
    if have:
        headers = {"Range": f"bytes={have}-"} | ({"If-Range": etag} if etag else {})
    with server.open(asset, commit, file.path, headers) as response:
        if response.status_code == 416 or (have and not _continues(response, have, file.size)):
            have = 0  # another range than was asked for, or the whole: nothing of the part is used
        if response.status_code == 416 or (response.status_code == 206 and not have):
            _drop(part)
            raise Unreachable(f"{server.url} answers a wrong range of {file.path}")
        _write(file, part, have, response, server, count)


def _write(file: RemoteFile, part: Path, have: int, response: Response, server: Endpoint, count: Count) -> None:
    hasher, done = file.hasher(), have
    with _taken_back(count) as tell, _room(file, part):
        if have:
            with part.open("rb") as before:
                hasher = hashlib.file_digest(before, file.hasher)
        elif file.size > SMALL:
            write_text(_note(part), json.dumps({"digest": file.digest, "etag": _strong(response)}))
        tell(have)
        with part.open("ab" if have else "wb", buffering=0) as out:  # what has come outlives a kill -9
            # as they come: gathering larger ones would copy everything once more
            for block in response.iter_raw():
                done += len(block)
                if done > file.size:
                    break
                out.write(block)
                hasher.update(block)
                tell(len(block))
        if done < file.size:
            raise Unreachable(f"{server.url} ended {file.path} after {done} of {file.size} bytes")
        if done > file.size or hasher.hexdigest() != file.digest:
            _drop(part)
            longer = f"is longer than {file.size} bytes"
            other = f"isn't what its hash {file.digest[:12]}... promises"
            raise Damaged(f"{file.path} from {server.url} {longer if done > file.size else other}")


@contextmanager
def _taken_back(count: Count) -> Iterator[Count]:
    """Counts, and counts back if the block fails: the next try begins with what it finds."""
    counted = 0

    def tell(size: int) -> None:
        nonlocal counted
        counted += size
        count(size)

    try:
        yield tell
    except BaseException:
        count(-counted)
        raise


@contextmanager
def _room(file: RemoteFile, part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left for {file.path} in {part.parent}") from None
        raise


def _resumable(part: Path, file: RemoteFile) -> tuple[int, str | None]:
    """Bytes of a part that may be gone on from, and the ETag that they came with."""
    try:
        note = json.loads(_note(part).read_text())
        size = part.stat().st_size
        if note["digest"] == file.digest and 0 < size < file.size:
            return size, note["etag"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0, None


def _continues(response: Response, have: int, size: int) -> bool:
    return response.status_code == 206 and response.headers.get("Content-Range") == f"bytes {have}-{size - 1}/{size}"


def _strong(response: Response) -> str | None:
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else None


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)
