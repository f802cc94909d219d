"""Your own pictures and captions, from a list of files; COCO and Flickr30k are presets of it."""

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alignlab.data.image_text.batches import FoilSet, Pair, ZeroShotPictures
from alignlab.data.image_text.foil_lists import FoilRow, own_foil_sets, read_foils
from alignlab.data.image_text.list_mixture import Lists, read_mixture
from alignlab.data.image_text.picture_files import check_files, say_shared
from alignlab.data.image_text.picture_list import CaptionedPicture, Pictures
from alignlab.data.image_text.vocabulary import clean_caption
from alignlab.data.pictures.prepared import PreparedPictures

log = logging.getLogger(__name__)
_CAPTIONED = 200_000  # pictures whose captions a vocabulary is made of and judged by, at most


class ImageTextPairs(PreparedPictures):
    """The source behind `data=image_text`, `coco` and `flickr30k`.

    Training: every picture once an epoch in a new order, under one of its captions; a random crop, mirrored only if
    `flip` (captions say left and right), and `augment_operations` of RandAugment. Elsewhere a picture is resized to
    the square as a whole, or as `recipe` says.

    Args:
        annotations: a list of pictures and captions, or several: each a file, or a mapping with file, and perhaps
            image_dir and weight, the times that an epoch shows its pictures (1; 0.5: another half in every epoch).
        image_size: height and width in pixels.
        mix: instead of `annotations` two or more files, each with its share of the pictures of an epoch.
        image_dir: where relative paths start; None: the folder of each list.
        val_annotations: a list, or several, of held-out pictures alone.
        val_share: share of the pictures that are held out where no list has a split for that.
        max_val: pictures that are held out so at most.
        clean_captions: cleans captions as the ALBEF reference does.
        foil_annotations: a list of pictures, true captions and foils to be measured with, see `read_foils`; all of its
            pictures are decoded at the start.
        settings: see `PreparedPictures`.
    """

    def __init__(
        self,
        annotations: Lists | None = None,
        image_size: int = 224,
        *,
        mix: Mapping[str, float] | None = None,
        image_dir: str | None = None,
        val_annotations: Lists | None = None,
        val_share: float = 0.05,
        max_val: int = 5000,
        clean_captions: bool = False,
        foil_annotations: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(image_size, **settings)
        self.clean_captions = clean_captions
        mixture = read_mixture(annotations, image_dir, val_annotations, val_share, max_val, self.bad, mix)
        sized = {split: check_files(pictures, self.bad) for split, pictures in mixture.splits.items()}
        self._mixture = mixture._replace(splits={split: there.pictures for split, there in sized.items()})
        self.splits: dict[str, Sequence[CaptionedPicture]] = dict(self._mixture.splits)
        say_shared(sized)
        if self.on_error == "skip":
            self.splits |= {s: self.readable(pictures, s) for s, pictures in self.splits.items() if s != "train"}
        foils = [] if foil_annotations is None else read_foils(foil_annotations, image_dir)
        self.foils = [row for row in foils if self._is_readable(row)]
        log.info("pictures: %s", ", ".join(f"{len(members)} {split}" for split, members in self.splits.items()))
        self.num_train = self._mixture.num_draws
        self.keep(len(self.splits["train"]))
        self._order = (-1, np.empty(0))  # epoch and its permutation

    def train_pair(self, serial: int) -> Pair | None:
        """Pair of an epoch's order; None if its picture is broken and `on_error` is "skip"."""
        epoch, position = divmod(serial, self.num_train)
        if self._order[0] != epoch:
            rng = np.random.Generator(np.random.PCG64((self.seed, epoch)))
            self._order = (epoch, self._mixture.order(rng))
        index = int(self._order[1][position])
        entry = self.splits["train"][index]
        rng = random.Random((self.seed << 48) + serial)
        picture = self.training_picture(index, entry, rng)
        if picture is None:
            return None
        caption = entry.captions[int(rng.random() * len(entry.captions))]
        return Pair(picture, self._clean(caption), index)

    def num_pictures(self, split: str) -> int:
        return len(self._split(split))

    def picture(self, index: int, split: str) -> np.ndarray:
        return self.whole_picture(self._split(split)[index])

    def name_of(self, index: int, split: str) -> str:
        """The path of a picture as its list has it."""
        return self._split(split)[index].name

    def captions_of(self, index: int, split: str) -> list[str]:
        return [self._clean(caption) for caption in self._split(split)[index].captions]

    def vocabulary_texts(self) -> Iterator[str]:
        """All training captions; of very many pictures those of an even sample."""
        return self._captions("train")

    def held_out_texts(self) -> Iterator[str]:
        """The captions of all other splits, and those of the foils."""
        yield from (caption for split in self.splits if split != "train" for caption in self._captions(split))
        yield from (self._clean(caption) for row in self.foils for caption in (row.caption, row.foil))

    def zero_shot_pictures(self) -> dict[str, ZeroShotPictures]:
        """None: such a list has no classes."""
        return {}

    def foil_sets(self, max_rows: int | None = None) -> dict[str, FoilSet]:
        """The rows of `foil_annotations` by their kind, at most so many of each."""
        return own_foil_sets(self.foils, self._foil_picture, self._clean, max_rows)

    def _foil_picture(self, row: FoilRow, side: int) -> np.ndarray:
        path = row.foil_image if side and row.foil_image else row.image
        return self.whole_picture(CaptionedPicture(path, (), row.where, ""))

    def _is_readable(self, row: FoilRow) -> bool:
        """Whether a row's pictures can be decoded; raises ValueError where that isn't to be skipped."""
        try:
            for side in range(1 if row.foil_image is None else 2):
                self._foil_picture(row, side)
        except ValueError as error:
            if self.on_error == "raise":
                raise
            self.left_out(error)
            return False
        return True

    def _captions(self, split: str) -> Iterator[str]:
        pictures = self.splits[split]
        some = pictures.spread(_CAPTIONED) if isinstance(pictures, Pictures) else pictures
        return (self._clean(caption) for entry in some for caption in entry.captions)

    def _clean(self, caption: str) -> str:
        return clean_caption(caption) if self.clean_captions else caption

    def _split(self, split: str) -> list[CaptionedPicture]:
        if split not in self.splits:
            raise ValueError(f"there is no split {split!r} in annotations, only {sorted(self.splits)}")
        return self.splits[split]


class ListedPairs(ImageTextPairs):
    """The source behind `data=csv`: one list, or a folder of pictures with texts beside them.

    Args:
        path: the list: .csv, .tsv, .jsonl, .json, or the folder.
        image_size: height and width in pixels.
        settings: see `ImageTextPairs`.
    """

    def __init__(self, path: str, image_size: int = 224, **settings: Any) -> None:
        super().__init__(path, image_size, **settings)
