"""Features of a folder of pictures, kept on disk: a second search encodes only what is new or has changed.

Legend: M pictures, D joint embedding, Q queries, k results.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from alignlab.callbacks.keeping.checkpoint_folder import trained
from alignlab.evaluation.reranking import nearest
from alignlab.evaluation.retrieval import Candidates
from alignlab.files.kinds import line_of
from alignlab.files.weights import read_file
from alignlab.files.writing import replaced
from alignlab.tasks.pictures.subject import VisionLanguage

log = logging.getLogger(__name__)
Search = Literal["exact", "faiss"]


class PictureIndex(NamedTuple):
    """Readable pictures with their features, and what was wrong with the others."""

    paths: list[Path]
    features: Tensor  # (M, D) float32, of length 1
    errors: list[str]
    num_encoded: int  # now; the rest came from disk


def index_pictures(
    subject: VisionLanguage,
    paths: list[Path],
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> PictureIndex:
    """Features of these pictures by this model; `folder` holds one file for each model's weights.

    A picture counts as the same if path, size and time of change are. The file is replaced at the end, so an
    interruption loses the new features, never the old ones. `on_progress` is told how many of how many new pictures are
    encoded. Raises ValueError if no picture can be read.
    """
    file = folder / f"{_weights_key(subject.run_dir)}.pt"
    known = _load(file)
    stamps = {str(path.resolve()): _stamp(path) for path in paths}
    new = [path for path in paths if _entry(known, path, stamps) is None]
    errors: list[str] = []
    done = 0
    for good, features, broken in subject.picture_batches(new):
        errors += broken.values()
        for path, feature in zip(good, features, strict=True):
            known[str(path.resolve())] = (stamps[str(path.resolve())], feature)
        done += len(good) + len(broken)
        on_progress(done, len(new))
    readable = [path for path in paths if str(path.resolve()) in known]
    if not readable:
        raise ValueError(f"no picture could be read: {errors[0]}")
    if new:
        _save(known, file)
        log.info("%d pictures encoded, %d came from %s", len(new) - len(errors), len(paths) - len(new), file)
    return PictureIndex(
        readable, torch.stack([known[str(path.resolve())][1] for path in readable]), errors, len(new) - len(errors)
    )


def find_nearest(query: Tensor, features: Tensor, k: int, search: Search = "exact") -> Candidates:
    """The k best of M features for each query, best first: (Q, D), (M, D) -> (Q, k).

    "exact" compares with all of them; "faiss" walks a graph of neighbours (HNSW, arXiv:1603.09320), which pays from
    some 100,000 pictures on and may miss some. Raises ValueError where faiss is not installed.
    """
    k = min(k, len(features))
    if search == "exact":
        return nearest(query, features, k)
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells of every build that isn't there
    try:
        import faiss
    except ImportError as error:
        raise ValueError(f"search=faiss: faiss is missing ({error}); pip install 'alignlab[faiss]'") from None
    index = faiss.IndexHNSWFlat(features.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efSearch = max(64, 2 * k)
    index.add(features.numpy())
    score, place = index.search(query.float().numpy(), k)
    return Candidates(torch.from_numpy(place), torch.from_numpy(score))


def _weights_key(run_dir: Path) -> str:
    """Tells the weights of a run directory apart without reading them."""
    file = trained(run_dir)
    text = "" if file is None else f"{file.resolve()}:{_stamp(file)}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _entry(known: dict, path: Path, stamps: dict[str, tuple[int, int]]) -> Tensor | None:
    stamp, feature = known.get(str(path.resolve()), (None, None))
    if stamp != stamps[str(path.resolve())]:
        known.pop(str(path.resolve()), None)
        return None
    return feature


def _load(file: Path) -> dict[str, tuple[tuple[int, int], Tensor]]:
    if not file.exists():
        return {}
    try:
        held = read_file(file, "index")
        return dict(zip(held["paths"], zip(held["stamps"], held["features"], strict=True), strict=True))
    except (ValueError, KeyError, TypeError) as error:  # only a record: it is made again
        log.warning("%s can't be used and is made anew (%s)", file, line_of(error))
        return {}


def _save(known: dict[str, tuple[tuple[int, int], Tensor]], file: Path) -> None:
    stamps, features = [stamp for stamp, _ in known.values()], [feature for _, feature in known.values()]
    with replaced(file) as temporary:
        torch.save({"paths": list(known), "stamps": stamps, "features": torch.stack(features)}, temporary)
