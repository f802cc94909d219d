"""Several lists of pictures as one data set: which pictures are trained on and held out, and how often each list is
drawn from.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from alignlab.data.image_text.annotations import read_annotations, split_by_hash
from alignlab.data.image_text.picture_list import Pictures
from alignlab.data.shares import num_draws, shares_of, weighted_order

Lists = str | Sequence[str | Mapping[str, Any]]
_FIELDS = ("file", "image_dir", "weight")


class ListOf(NamedTuple):
    """One list of a data set."""

    file: str
    image_dir: str | None  # None: the data set's
    weight: float = 1.0  # times that an epoch shows its training pictures
    key: str = "annotations"  # what gave it, for messages
    more: Mapping[str, Any] = {}  # what else a kind of lists has


class Mixture(NamedTuple):
    """Pictures by split, and the weights of the parts that the training pictures consist of."""

    splits: dict[str, Pictures]
    given: list[float]  # times that an epoch shows a part's training pictures, or with `lists` the share of its list
    lists: list[int] | None = None  # which list each part is of, where lists have shares of the epoch

    @property
    def weights(self) -> list[float]:
        """Times that an epoch shows each part's training pictures."""
        if self.lists is None:
            return self.given
        sizes = self._sizes
        of_list = {one: sum(n for n, of in zip(sizes, self.lists, strict=True) if of == one) for one in self.lists}
        total = sum(sizes)
        return [share * total / max(of_list[of], 1) for share, of in zip(self.given, self.lists, strict=True)]

    @property
    def num_draws(self) -> int:
        """Training pictures of an epoch."""
        return num_draws(self._sizes, self.weights)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Numbers of the training pictures in a random order of one epoch."""
        return weighted_order(self._sizes, self.weights, rng)

    @property
    def _sizes(self) -> list[int]:
        return [len(numbers) for _, numbers in self.splits["train"].parts]


def read_mixture(
    annotations: Lists | None,
    image_dir: str | None,
    val_annotations: Lists | None,
    val_share: float,
    max_val: int,
    bad: Callable[[ValueError], None] | None = None,
    mix: Mapping[str, float] | None = None,
) -> Mixture:
    """All lists of a data set; `bad` as in `read_annotations`. `mix` instead of `annotations`: files with their shares
    of an epoch, which has as many pictures as all of them together.

    Held out are the pictures of `val_annotations`; or those that the lists call so; or of the others `val_share` by a
    hash, at most `max_val`.

    Raises:
        ValueError: a list can't be read, or one side is left without a picture.
    """
    if (annotations is None) == (mix is None):
        raise ValueError(
            "annotations is not set: name a list, or several with mix={a.jsonl: 0.7, b.csv: 0.3}; not both"
        )
    splits, parts = {}, []  # of training: pictures, weight, and which list
    shares = {} if mix is None else shares_of(mix)
    mixed = (ListOf(file, image_dir, share, "mix") for file, share in shares.items())
    lists = lists_of(annotations, image_dir, "annotations") if mix is None else mixed
    for number, one in enumerate(lists):
        lists_read = read_annotations(one.file, one.image_dir, one.key, bad)
        parts += [(lists_read.pop(name), one.weight, number) for name in ("train", "") if name in lists_read]
        for name, pictures in lists_read.items():
            splits[name] = splits[name] + pictures if name in splits else pictures
    train = Pictures([part for pictures, *_ in parts for part in pictures.parts])
    if val_annotations is not None:
        held_lists = lists_of(val_annotations, image_dir, "val_annotations")
        held = (p for one in held_lists for p in read_annotations(one.file, one.image_dir, one.key, bad).values())
        splits["val"] = Pictures([part for pictures in held for part in pictures.parts])
    elif "val" not in splits:
        if not 0 < val_share < 1:
            raise ValueError(f"val_share is {val_share}; it must lie between 0 and 1")
        if max_val < 1:
            raise ValueError(f"max_val is {max_val}; it must be at least 1")
        train, splits["val"] = split_by_hash(train, val_share, max_val)
    splits = {"train": train, **splits}
    for split in ("train", "val"):
        if not len(splits[split]):
            raise ValueError(
                f"{annotations or ', '.join(mix)} leaves no picture for the split {split!r}; see val_annotations and "
                "val_share"
            )
    weights, numbers = ([row[place] for row in parts for _ in row[0].parts] for place in (1, 2))
    return Mixture(splits, weights, numbers if mix else None)


def lists_of(given: Lists, image_dir: str | None, key: str, more: Sequence[str] = ()) -> Iterator[ListOf]:
    """Each list, whether it is given as a file or as {file, image_dir, weight} with perhaps `more` keys."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        yield ListOf(str(given), image_dir, key=key)
        return
    if not given:
        raise ValueError(f"{key} is an empty list; name the files of pictures and captions")
    for number, one in enumerate(given):
        name = f"{key}[{number}]"
        if isinstance(one, str):
            yield ListOf(one, image_dir, key=name)
            continue
        unknown = set(one) - {*_FIELDS, *more}
        if unknown or "file" not in one:
            problem = f"has no {', '.join(sorted(unknown))}" if unknown else "needs a file"
            raise ValueError(f"{name} {problem}; a list is a file or has the keys {', '.join((*_FIELDS, *more))}")
        weight = one.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise ValueError(f"{name}.weight is {weight}; it must be a number above 0")
        others = {field: one[field] for field in more if field in one}
        yield ListOf(str(one["file"]), one.get("image_dir", image_dir), float(weight), name, others)
