"""Several sources of texts as one: how often a row of each comes, in which epoch, and batches with rows of several.

Legend: N rows of an epoch, B rows of a batch, T tokens.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignlab.data.language.batches import RowSource, Shuffled, Split
from alignlab.data.language.movies import MovieLabels, MoviePreferences, MoviePrompts, MovieReviews
from alignlab.data.language.rendering import Renderer
from alignlab.data.shares import shares_of
from alignlab.types.language import LabelledBatch, PreferenceBatch, PromptBatch, Sources, TokenBatch

log = logging.getLogger(__name__)
BUILT_IN = {
    "movie_reviews": MovieReviews,
    "movie_preferences": MoviePreferences,
    "movie_labels": MovieLabels,
    "movie_prompts": MoviePrompts,
}
_OF_ONE = ("path", "val_path", "tasks")  # settings that say what a source is


class MixedSource:
    """Files, or built-in data sets by name, as one source: `data.mix={chats.jsonl: 0.7, movie_reviews: 0.3}`.

    Args:
        mix: each one's share of the training rows, in any unit.
        make: the source of one file, `make(path=file, **settings)`.
        common: what every source takes: `split_seed`, `val_share`.
        settings: what those of files take besides.

    Raises:
        ValueError: see `shares_of`; or a path beside the mixture.
    """

    def __init__(
        self, mix: Mapping[str, float], make: Callable[..., RowSource], common: dict[str, Any], settings: dict[str, Any]
    ) -> None:
        self.shares = list(shares_of(mix).values())
        if given := [key for key in _OF_ONE if settings.get(key)]:
            raise ValueError(f"{given[0]} has no place beside mix, which names all sources; each holds out val_share")
        files = {key: value for key, value in settings.items() if key not in _OF_ONE}
        self.sources = {
            name: BUILT_IN[name](**common) if name in BUILT_IN else make(path=name, **common, **files) for name in mix
        }

    def rows(self, split: Split, renderer: Renderer, seed: int) -> "MixedRows":
        """Raises ValueError where a source has no row, or sources give rows of different kinds."""
        parts = {name: source.rows(split, renderer, seed) for name, source in self.sources.items()}
        kinds = {name: part.batch_type.__name__ for name, part in parts.items()}
        if len(set(kinds.values())) > 1:
            listed = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
            raise ValueError(f"mix holds rows of different kinds ({listed}); see kind")
        mixed = MixedRows(parts, self.shares if split == "train" else None, seed)
        if split == "train":
            log.info("an epoch of %d rows: %s", len(mixed), mixed.told())
        return mixed


class MixedRows(Shuffled):
    """Rows of several sets in stated shares; an epoch has as many as all sets together.

    A set whose share asks for fewer rows than it has shows others in the next epoch, one whose share asks for more
    repeats: each goes through its rows in a new order again and again. What comes when is a function of seed and
    epoch.

    Args:
        parts: each set's rows, by name; their own order isn't used.
        shares: of the rows of an epoch, adding up to 1; None: every row once.
    """

    def __init__(self, parts: Mapping[str, Shuffled], shares: Sequence[float] | None, seed: int) -> None:
        super().__init__(seed)
        self.parts, self.names = list(parts.values()), short_names(list(parts))
        for part in self.parts:
            part.seed = None
        self.batch_type = self.parts[0].batch_type
        self.sizes = np.array([len(part) for part in self.parts])
        self._first = np.concatenate([[0], np.cumsum(self.sizes)])  # number of each set's first row
        texts = [len(getattr(part, "store", part)) for part in self.parts]
        self._first_text = np.concatenate([[0], np.cumsum(texts)])
        self.counts = self.sizes if shares is None else apportioned(int(self.sizes.sum()), shares)
        self._seed, self._drawn = seed, (-1, np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return int(self.counts.sum())

    def told(self) -> str:
        """How many rows of each, and how often that is each of its rows."""
        listed = zip(self.names, self.counts, self.sizes, strict=True)
        return ", ".join(f"{count} of {name} ({count / size:.2g} times each)" for name, count, size in listed)

    def drawn(self, epoch: int) -> np.ndarray:
        """(N,) int64 rows of an epoch, counted over all sets, before they are shuffled."""
        if self._drawn[0] != epoch:
            drawn = [self._first[i] + self._of_part(i, epoch) for i in range(len(self.parts))]
            self._drawn = (epoch, np.concatenate(drawn))
        return self._drawn[1]

    def row_lengths(self, epoch: int) -> np.ndarray:
        return np.concatenate([part.row_lengths(epoch) for part in self.parts])[self.drawn(epoch)]

    def __getitems__(self, serials: Sequence[int]) -> TokenBatch | PreferenceBatch | PromptBatch:
        epoch, places = self.rows(serials)
        return self._batch(self.drawn(epoch)[places], epoch)

    def batch(self, places: np.ndarray) -> PromptBatch:
        """Prompts by their places in the first epoch."""
        return self._batch(self.drawn(0)[places], 0)

    def _of_part(self, number: int, epoch: int) -> np.ndarray:
        """The rows of one set in an epoch: the next `count` of its orders laid end to end."""
        size, count = int(self.sizes[number]), int(self.counts[number])
        if count == size:
            return np.arange(size)
        turns, places = np.divmod(np.arange(epoch * count, (epoch + 1) * count), size)
        orders = {
            turn: np.random.default_rng([self._seed, number, turn]).permutation(size) for turn in np.unique(turns)
        }
        return np.concatenate([order[places[turns == turn]] for turn, order in orders.items()])

    def _batch(self, rows: np.ndarray, epoch: int) -> TokenBatch | PreferenceBatch | PromptBatch:
        which = np.searchsorted(self._first, rows, "right") - 1
        made, numbers = [], []
        for i in np.unique(which).tolist():
            part = self.parts[i]
            batch = part.__getitems__((epoch * len(part) + rows[which == i] - self._first[i]).tolist())
            made.append((batch, int(self._first_text[i])))
            numbers.append(torch.full((len(batch.ids),), i))
        return _joined(made)._replace(sources=Sources(torch.cat(numbers), self.names))


def apportioned(total: int, shares: Sequence[float]) -> np.ndarray:
    """Whole numbers that add up to `total`, one at least each, by the largest remainders."""
    exact = np.array(shares) * total
    counts = np.maximum(np.floor(exact), 1).astype(np.int64)
    for place in np.argsort(-(exact - np.floor(exact)), kind="stable")[: max(total - counts.sum(), 0)]:
        counts[place] += 1
    return counts


def short_names(sources: Sequence[str]) -> tuple[str, ...]:
    """File names without folder and ending, if these differ; made of what a metric's name may hold."""
    stems = [PurePath(source).stem for source in sources]
    chosen = stems if len(set(stems)) == len(stems) else list(sources)
    return tuple(re.sub(r"[^\w.-]+", "_", name).strip("_") or "source" for name in chosen)


def _joined(batches: Sequence[tuple[Any, int]]) -> Any:
    """Batches of one kind as one; each comes with the number of its set's first text."""
    parts = [batch for batch, _ in batches]
    first_row = np.concatenate([[0], np.cumsum([len(part.ids) for part in parts])]).tolist()
    width = max(part.ids.shape[1] for part in parts)
    left = isinstance(parts[0], PromptBatch)

    def wide(name: str) -> Tensor:
        rows = [getattr(part, name) for part in parts]
        return torch.cat([torch.nn.functional.pad(row, _pad(width - row.shape[1], left)) for row in rows])

    def flat(name: str, by: Sequence[int]) -> Tensor:
        return torch.cat([getattr(part, name) + more for part, more in zip(parts, by, strict=True)])

    texts = [first for _, first in batches]
    if left:
        lists = {name: _listed([getattr(part, name) for part in parts], parts) for name in ("content", "rows")}
        return PromptBatch(wide("ids"), wide("mask"), flat("index", texts), **lists)
    target = _moved([(part.target, part.ids) for part in parts], first_row, width)
    if isinstance(parts[0], LabelledBatch):
        other_width = max(part.other_ids.shape[1] for part in parts)
        other = torch.cat(
            [torch.nn.functional.pad(p.other_ids, (0, other_width - p.other_ids.shape[1])) for p in parts]
        )
        other_target = _moved([(p.other_target, p.other_ids) for p in parts], first_row, other_width)
        label = torch.cat([part.label for part in parts])
        return LabelledBatch(wide("ids"), wide("mask"), target, label, flat("index", texts), other, other_target)
    if isinstance(parts[0], TokenBatch):
        packed = any(part.packed for part in parts)
        return TokenBatch(wide("ids"), wide("document"), wide("position"), target, packed)
    index = flat("index", texts)
    pairs = (flat("first", first_row[:-1]), flat("second", first_row[:-1]), flat("share", [0] * len(parts)))
    margin = flat("margin", [0] * len(parts))
    return PreferenceBatch(wide("ids"), wide("mask"), target, *pairs, margin, index, tuple(index.tolist()))


def _moved(targets: Sequence[tuple[Tensor, Tensor]], first_row: Sequence[int], width: int) -> Tensor:
    """Places in flattened tensors (B, T), each with its tensor, as places in all of them below each other, as wide."""
    rows = zip(targets, first_row, strict=False)
    return torch.cat([(place // ids.shape[1] + row) * width + place % ids.shape[1] for (place, ids), row in rows])


def _pad(more: int, left: bool) -> tuple[int, int]:
    return (more, 0) if left else (0, more)


def _listed(lists: Sequence[list | None], parts: Sequence[PromptBatch]) -> list | None:
    """Lists end to end; None where no part has one."""
    if all(one is None for one in lists):
        return None
    return [
        item
        for one, part in zip(lists, parts, strict=True)
        for item in (one if one is not None else [{}] * len(part.ids))
    ]
