"""Rows of your own lists for tasks on pictures: which are trained on and held out, in which order, with pictures."""

import logging
import random
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alignlab.data.flat_rows import FlatRows
from alignlab.data.image_text.batches import FoilSet, Pair, ZeroShotPictures
from alignlab.data.image_text.list_mixture import ListOf, Lists, lists_of
from alignlab.data.image_text.picture_files import size_of
from alignlab.data.image_text.picture_list import CaptionedPicture
from alignlab.data.picture_tasks.task_rows import Bad, TaskRow
from alignlab.data.pictures.members import Member
from alignlab.data.pictures.prepared import PreparedPictures
from alignlab.data.shares import hashed, held_out_of, num_draws, weighted_order

log = logging.getLogger(__name__)
_LOOKED_AT = 200_000  # rows whose texts a vocabulary is made of and judged by, at most


class Row(NamedTuple):
    """A row with its pictures."""

    where: str
    pictures: tuple[int, ...]  # their numbers
    text: str
    told: Any
    kind: str


class OwnTask(PreparedPictures, ABC):
    """What sources of tasks have in common whose rows lie in lists. Every training row comes once an epoch (or as often
    as its list's weight says) in a new order; the others keep theirs.

    Args:
        annotations: a list, or several: each a file, or a mapping with file, and perhaps image_dir and weight, the
            times that an epoch shows its rows.
        image_size: height and width in pixels.
        image_dir: where relative paths start; None: the folder of each list.
        val_annotations: a list, or several, of held-out rows alone.
        val_share: share of the pictures whose rows are held out where no list has a split for that.
        max_val: rows that are held out so at most.
        settings: see `PreparedPictures`.

    Raises:
        ValueError: a list can't be read, or one side is left without a row.
    """

    fields: Sequence[str] = ()  # of a list, besides those that every list has

    def __init__(
        self,
        annotations: Lists,
        image_size: int,
        *,
        image_dir: str | None = None,
        val_annotations: Lists | None = None,
        val_share: float = 0.05,
        max_val: int = 20_000,
        **settings: Any,
    ) -> None:
        super().__init__(image_size, **settings)
        for key, value, good in (("val_share", val_share, 0 < val_share < 1), ("max_val", max_val, max_val >= 1)):
            if not good:
                limit = "lie between 0 and 1" if key == "val_share" else "be at least 1"
                raise ValueError(f"{key} is {value}; it must {limit}")
        lists = [(one, False) for one in lists_of(annotations, image_dir, "annotations", self.fields)]
        if val_annotations is not None:
            lists += [(one, True) for one in lists_of(val_annotations, image_dir, "val_annotations", self.fields)]
        self._splits: dict[str, int] = {"": 0, "train": 0, "val": 1}
        self._columns: dict[str, array] = {name: array("q") for name in ("split", "list", "picture")}
        self._hashes = array("Q")
        self.pictures_a_row = 0
        self._numbers: dict[str | Member, int] = {}
        self._places: list[tuple[str, str]] = []  # of each picture: the first row that has it, and its name
        self._rows = FlatRows(self._read_all(lists))
        self._settle([one.weight for one, _ in lists], val_share, max_val)

    @abstractmethod
    def read(self, one: ListOf, bad: Bad) -> Iterator[TaskRow]:
        """The rows of one list."""

    def _read_all(self, lists: Sequence[tuple[ListOf, bool]]) -> Iterator[list]:
        for number, (one, held_out) in enumerate(lists):
            file = Path(one.file).expanduser()
            folder = Path(one.image_dir).expanduser() if one.image_dir is not None else file.parent
            for row in self.read(one, self.bad):
                try:
                    pictures = self._numbered(row, folder)
                except ValueError as error:
                    if self.bad is None:
                        raise
                    self.bad(error)
                    continue
                split = "val" if held_out else row.split
                self._columns["split"].append(self._splits.setdefault(split, len(self._splits)))
                self._columns["list"].append(number)
                self._columns["picture"].extend(pictures)
                self._hashes.append(hashed(self._places[pictures[0]][1]))
                yield [row.where, pictures, row.text, row.told, row.kind]

    def _numbered(self, row: TaskRow, folder: Path) -> list[int]:
        """The numbers of a row's pictures."""
        if not row.pictures:
            raise ValueError(f"{row.where}: there is no picture")
        self.pictures_a_row = self.pictures_a_row or len(row.pictures)
        if len(row.pictures) != self.pictures_a_row:
            raise ValueError(
                f"{row.where}: {len(row.pictures)} pictures, where the rows before have {self.pictures_a_row}"
            )
        numbers = []
        for name in row.pictures:
            path = name if isinstance(name, Member) else str(folder / name)
            if path not in self._numbers:
                self._numbers[path] = len(self._numbers)
                below = f"{name.file.name}/{name.name}" if isinstance(name, Member) else str(Path(name))
                self._places.append((row.where, below))
            numbers.append(self._numbers[path])
        return numbers

    def _settle(self, weights: list[float], val_share: float, max_val: int) -> None:
        """Leaves out rows without pictures, and deals the others out to the splits."""
        self._paths = list(self._numbers)
        del self._numbers
        split, of_list = (np.array(self._columns[name], np.int64) for name in ("split", "list"))
        pictures = np.array(self._columns["picture"], np.int64).reshape(len(self._rows), -1)
        hashes = np.array(self._hashes, np.uint64)
        del self._columns, self._hashes
        used = self._there()[pictures].all(1) if len(self._rows) else np.zeros(0, bool)
        held = used & (split == 1)
        if not held.any():
            free = np.flatnonzero(used & (split == 0))
            held[free[held_out_of(hashes[free], val_share, max_val)]] = True
        trained = used & (split == 0) & ~held
        self._held = {"val": np.flatnonzero(held)}
        for name, code in self._splits.items():
            if code > 1:
                self._held[name] = np.flatnonzero(used & (split == code))
        if self.on_error == "skip":
            whole = self._whole(np.unique(pictures[np.concatenate([*self._held.values()])]))
            self._held = {name: rows[whole[pictures[rows]].all(1)] for name, rows in self._held.items()}
        self._parts = [np.flatnonzero(trained & (of_list == number)) for number in range(len(weights))]
        self._weights = [weight for weight, part in zip(weights, self._parts, strict=True) if len(part)]
        self._parts = [part for part in self._parts if len(part)]
        if not self._parts or not len(self._held["val"]):
            empty = "train" if not self._parts else "val"
            raise ValueError(f"annotations leave no row for the split {empty!r}; see val_annotations and val_share")
        self._trained = np.concatenate(self._parts)
        self.num_train = num_draws([len(part) for part in self._parts], self._weights)
        self._order = (-1, np.empty(0))  # epoch and its permutation
        self._slots = np.full(len(self._paths), -1)  # of training pictures, in the cache
        own = np.unique(pictures[self._trained])
        self._slots[own] = np.arange(len(own))
        self.keep(len(own))
        shared = np.intersect1d(own, pictures[self._held["val"]])
        if len(shared):
            log.warning(
                "%d pictures of held-out rows are training pictures too, such as %s: numbers may be too good",
                len(shared),
                self._entry(int(shared[0])).path,
            )
        numbers = {"train": len(self._trained)} | {name: len(rows) for name, rows in self._held.items()}
        log.info("rows: %s", ", ".join(f"{number} {name}" for name, number in numbers.items()))

    def _there(self) -> np.ndarray:
        """Which picture files are there."""
        there = np.ones(len(self._paths), bool)
        for number in range(len(self._paths)):
            try:
                size_of(self._entry(number))
            except ValueError as error:
                if self.bad is None:
                    raise
                self.bad(error)
                there[number] = False
        return there

    def _whole(self, numbers: np.ndarray) -> np.ndarray:
        """Which pictures can be decoded, of those with some numbers."""
        whole = np.ones(len(self._paths), bool)
        for number in numbers.tolist():
            try:
                self.decoded(self._entry(number))
            except ValueError as error:
                self.left_out(error)
                whole[number] = False
        return whole

    def _entry(self, number: int) -> CaptionedPicture:
        (where, name), path = self._places[number], self._paths[number]
        return CaptionedPicture(path if isinstance(path, Member) else Path(path), (), where, name)

    def row_of(self, number: int) -> Row:
        """Row of all lists together."""
        where, pictures, text, told, kind = self._rows[number]
        return Row(where, tuple(pictures), text, told, kind)

    def rows_of(self, split: str, most: int | None = None) -> Iterator[Row]:
        """The rows of a split, or `most` evenly from the first to the last."""
        numbers = self._numbers_of(split)
        size = len(numbers) if most is None else min(most, len(numbers))
        return (self.row_of(int(numbers[place * len(numbers) // size])) for place in range(size))

    def shown(self, serial: int, split: str) -> tuple[Row, list[np.ndarray]] | None:
        """A row with its pictures as a batch has them; None where one is broken and left out."""
        if split != "train":
            row = self.row_of(int(self._of(split)[serial]))
            return row, [self.whole_picture(self._entry(number)) for number in row.pictures]
        epoch, position = divmod(serial, self.num_train)
        if self._order[0] != epoch:
            rng = np.random.Generator(np.random.PCG64((self.seed, epoch)))
            self._order = (epoch, weighted_order([len(part) for part in self._parts], self._weights, rng))
        row, rng = self.row_of(int(self._trained[self._order[1][position]])), random.Random((self.seed << 48) + serial)
        pictures = [self.training_picture(int(self._slots[n]), self._entry(n), rng) for n in row.pictures]
        return None if any(picture is None for picture in pictures) else (row, pictures)

    def thin_out(self, split: str, most: int) -> None:
        """Keeps at most so many rows of a split that isn't trained on, evenly from the first to the last."""
        rows = self._of(split)
        if len(rows) > most:
            self._held[split] = rows[np.arange(most) * len(rows) // most]

    def _numbers_of(self, split: str) -> np.ndarray:
        return self._trained if split == "train" else self._of(split)

    def _of(self, split: str) -> np.ndarray:
        if split not in self._held:
            raise ValueError(f"there is no split {split!r} in annotations, only {['train', *self._held]}")
        return self._held[split]

    def num_rows(self, split: str) -> int:
        return self.num_train if split == "train" else len(self._of(split))

    def num_pictures(self, split: str) -> int:
        return len(self._numbers_of(split))

    def picture(self, index: int, split: str) -> np.ndarray:
        """The first picture of a row."""
        return self.whole_picture(self._entry(self.picture_number(index, split)))

    def picture_number(self, index: int, split: str) -> int:
        """What rows about one picture have in common."""
        return self.row_of(int(self._numbers_of(split)[index])).pictures[0]

    def captions_of(self, index: int, split: str) -> list[str]:
        """A row's text."""
        return [self.row_of(int(self._numbers_of(split)[index])).text]

    def train_pair(self, serial: int) -> Pair | None:
        """A row as a picture with its text."""
        shown = self.shown(serial, "train")
        return None if shown is None else Pair(shown[1][0], shown[0].text, shown[0].pictures[0])

    def vocabulary_texts(self) -> Iterator[str]:
        """The texts of training rows; of very many those of an even sample."""
        return (row.text for row in self.rows_of("train", _LOOKED_AT))

    def held_out_texts(self) -> Iterator[str]:
        return (row.text for split in self._held for row in self.rows_of(split, _LOOKED_AT))

    def zero_shot_pictures(self) -> dict[str, ZeroShotPictures]:
        """None: such a list has no classes of pictures."""
        return {}

    def foil_sets(self, max_rows: int | None = None) -> dict[str, FoilSet]:
        """None."""
        return {}
