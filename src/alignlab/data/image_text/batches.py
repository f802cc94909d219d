"""From pictures with captions to batches; what a data set of pairs has to offer.

Pictures travel as uint8 (B, 3, H, W) and are normalised on the device.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alignlab.data.image_text.vocabulary import CaptionEncoder, text_id
from alignlab.types.pairs import ClassificationBatch, FoilBatch, Foils, PairBatch, RetrievalBatch, Sentences

# Image ids of held-out pictures start here, those of training pictures below: a queue may hold both.
HELD_OUT_IDS = 2**62


class Sentence(NamedTuple):
    """A sentence about a picture; the word in characters [start, end) is what only the picture can tell."""

    text: str
    start: int
    end: int


class Pair(NamedTuple):
    """A picture with one caption, and what else is known to be true and false of it."""

    picture: np.ndarray  # (H, W, 3) uint8
    caption: str
    image_id: int
    sentences: Sequence[Sentence] = ()  # equally many for every pair of a source
    foils: Sequence[str] = ()  # captions that are false of it by one fact, equally many; "" where there is none


class ZeroShotPictures(NamedTuple):
    """A classification problem before tokenizing."""

    names: list[str]  # of the classes
    prompts: list[list[str]]  # of every class, equally many
    labels: list[int]  # one for each picture
    picture: Callable[[int], np.ndarray]  # (H, W, 3) uint8


class FoilSet(NamedTuple):
    """Rows of one or two pictures and two captions before tokenizing: caption i is true of picture i alone."""

    captions: Sequence[tuple[str, str]]
    picture: Callable[[int, int], np.ndarray]  # (row, 0 or 1) -> (H, W, 3) uint8
    pictures: int = 2  # of a row; 1: the second caption is true of none


class PairSource(Protocol):
    """What a data set has to offer; splits are "train" and "val" (some have others)."""

    num_train: int  # pairs in an epoch

    def train_pair(self, serial: int) -> Pair | None:
        """Pair number `serial` = epoch x num_train + position in the epoch's order; None if its picture is broken and
        skipped.
        """

    def num_pictures(self, split: str) -> int: ...

    def picture(self, index: int, split: str) -> np.ndarray: ...

    def captions_of(self, index: int, split: str) -> list[str]: ...

    def vocabulary_texts(self) -> Iterator[str]: ...

    def held_out_texts(self) -> Iterator[str]: ...

    def zero_shot_pictures(self) -> dict[str, ZeroShotPictures]: ...

    def foil_sets(self, max_rows: int | None = None) -> dict[str, FoilSet]: ...


class TrainPairs(Dataset):
    """Makes whole training batches from lists of serial numbers; with `windows`, one that doesn't fit shows another
    window of its tokens each time.
    """

    def __init__(self, source: PairSource, encode: CaptionEncoder, *, windows: bool = False) -> None:
        self.source, self.encode, self.windows = source, encode, windows

    def __len__(self) -> int:
        return self.source.num_train

    def __getitems__(self, serials: Sequence[int]) -> PairBatch:
        pairs = [self.source.train_pair(serial) for serial in serials]
        draws = [random.Random(serial).random() for serial in serials] if self.windows else None
        return _pair_batch(fill_gaps(pairs, serials), self.encode, draws)


class HeldOutPairs(Dataset):
    """Pictures of a split with their first caption, for validation losses."""

    def __init__(self, source: PairSource, split: str, encode: CaptionEncoder) -> None:
        self.source, self.split, self.encode = source, split, encode

    def __getitems__(self, indices: Sequence[int]) -> PairBatch:
        source, split = self.source, self.split
        told = getattr(source, "told_of", lambda *_: ((), ()))  # of sources that know more than captions
        number = getattr(source, "picture_number", lambda i, _: i)  # of sources with several rows about a picture
        pairs = [
            Pair(
                source.picture(i, split),
                source.captions_of(i, split)[0],
                HELD_OUT_IDS + number(i, split),
                *told(i, split),
            )
            for i in indices
        ]
        return _pair_batch(pairs, self.encode)


class RetrievalPictures(Dataset):
    """Pictures of a split with all their captions."""

    def __init__(self, source: PairSource, split: str, encode: CaptionEncoder) -> None:
        self.source, self.split, self.encode = source, split, encode

    def __getitems__(self, indices: Sequence[int]) -> RetrievalBatch:
        captions = [self.source.captions_of(i, self.split) for i in indices]
        ids, mask = self.encode([caption for several in captions for caption in several])
        image_of_text = torch.tensor([i for i, several in zip(indices, captions, strict=True) for _ in several])
        image = stacked([self.source.picture(i, self.split) for i in indices])
        return RetrievalBatch(image, ids, mask, image_of_text, torch.tensor(list(indices)))


class LabelledPictures(Dataset):
    """Pictures of a zero-shot set with their class."""

    def __init__(self, pictures: ZeroShotPictures) -> None:
        self.pictures = pictures

    def __getitems__(self, indices: Sequence[int]) -> ClassificationBatch:
        return ClassificationBatch(
            stacked([self.pictures.picture(i) for i in indices]),
            torch.tensor([self.pictures.labels[i] for i in indices]),
        )


class FoilPictures(Dataset):
    """Rows of a set of foils."""

    def __init__(self, rows: FoilSet, encode: CaptionEncoder) -> None:
        self.rows, self.encode = rows, encode

    def __getitems__(self, indices: Sequence[int]) -> FoilBatch:
        ids, mask = self.encode([caption for i in indices for caption in self.rows.captions[i]])
        image = stacked([self.rows.picture(i, side) for i in indices for side in range(self.rows.pictures)])
        return FoilBatch(*_by_picture(len(indices), image, ids, mask))


class NormalisedBatches:
    """A loader's batches with pictures as normalised floats; can be gone through again and again."""

    def __init__(self, loader: DataLoader, normalise: Callable[[Tensor], Tensor]) -> None:
        self.loader, self.normalise = loader, normalise

    def __iter__(self) -> Iterator:
        for batch in self.loader:
            yield batch._replace(image=self.normalise(batch.image))

    def __len__(self) -> int:
        return len(self.loader)


def fill_gaps(rows: list[Any | None], serials: Sequence[int]) -> list[Any]:
    """Replaces skipped rows by others of the batch, so that every rank keeps its batch size."""
    good = [row for row in rows if row is not None]
    if not good:
        raise ValueError(f"every picture of a batch of {len(rows)} is broken")
    return [row if row is not None else good[serial % len(good)] for row, serial in zip(rows, serials, strict=True)]


def _pair_batch(pairs: list[Pair], encode: CaptionEncoder, draws: Sequence[float] | None = None) -> PairBatch:
    foils = [foil for pair in pairs for foil in pair.foils]
    if draws is not None:  # a foil shows the window of its caption
        draws = [*draws, *(draw for pair, draw in zip(pairs, draws, strict=True) for _ in pair.foils)]
    ids, mask = encode([*(pair.caption for pair in pairs), *foils], draws)  # equally long
    size = len(pairs)
    return PairBatch(
        stacked([pair.picture for pair in pairs]),
        ids[:size],
        mask[:size],
        torch.tensor([pair.image_id for pair in pairs]),
        torch.tensor([text_id(pair.caption) for pair in pairs]),
        _sentences(pairs, encode),
        Foils(*_by_picture(size, ids[size:], mask[size:], torch.tensor([foil != "" for foil in foils])))
        if foils
        else None,
    )


def _sentences(pairs: list[Pair], encode: CaptionEncoder) -> Sentences | None:
    several = [sentence for pair in pairs for sentence in pair.sentences]
    if not several:
        return None
    ids, mask, telling = encode.marked([one.text for one in several], [(one.start, one.end) for one in several])
    return Sentences(*_by_picture(len(pairs), ids, mask, telling, telling.any(1)))  # a word that was cut tells nothing


def _by_picture(pictures: int, *rows: Tensor) -> Iterator[Tensor]:
    """(B n, ...) -> (B, n, ...)."""
    return (x.unflatten(0, (pictures, -1)) for x in rows)


def stacked(pictures: list[np.ndarray]) -> Tensor:
    """(B, 3, H, W) uint8, contiguous."""
    return torch.from_numpy(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)))
