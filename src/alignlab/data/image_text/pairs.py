"""Your own pictures and captions, from a list of files; COCO and Flickr30k are presets of it."""

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from PIL import Image

from alignlab.data.image_text.augmentation import random_augment, random_resized_crop
from alignlab.data.image_text.batches import FoilSet, Pair, ZeroShotPictures
from alignlab.data.image_text.foil_lists import FoilRow, own_foil_sets, read_foils
from alignlab.data.image_text.list_mixture import Lists, read_mixture
from alignlab.data.image_text.picture_cache import PictureCache, read_picture
from alignlab.data.image_text.picture_files import check_files, say_shared
from alignlab.data.image_text.picture_list import CaptionedPicture, Pictures
from alignlab.data.image_text.vocabulary import clean_caption
from alignlab.data.recipes.pictures import WHOLE, shaped, squashed
from alignlab.data.skipping import Skipped
from alignlab.types.recipes import PictureRecipe

log = logging.getLogger(__name__)
_CAPTIONED = 200_000  # pictures whose captions a vocabulary is made of and judged by, at most
_CACHE_SIDE = 1.4  # cached pictures have about twice the area of a training picture, so that crops stay sharp


class ImageTextPairs:
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
        on_error: what a wrong row, a missing file and a broken picture do: "raise", or "skip" with a line each. For a
            training picture that is broken another pair of the batch is taken; pictures of other splits are all
            decoded at the start, so that every rank leaves the same ones out.
        max_skipped: so many may be left out by one process.
        cache_gb: gigabytes for decoded training pictures.
        foil_annotations: a list of pictures, true captions and foils to be measured with, see `read_foils`; all of its
            pictures are decoded at the start.
    """

    recipe: PictureRecipe | None = None  # of a released net, for pictures that aren't trained on

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
        seed: int = 0,
        crop_scale: tuple[float, float] = (0.5, 1.0),
        flip: bool = False,
        augment_operations: int = 0,
        augment_magnitude: float = 7.0,
        clean_captions: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
        max_skipped: int = 1000,
        cache_gb: float = 4.0,
        foil_annotations: str | None = None,
    ) -> None:
        if not 0 < crop_scale[0] <= crop_scale[1] <= 1:
            raise ValueError(f"crop_scale is {list(crop_scale)}; it must be two rising numbers in (0, 1]")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}; it must be 'raise' or 'skip'")
        if not 0 <= augment_magnitude <= 10:
            raise ValueError(f"augment_magnitude is {augment_magnitude}; it must be 0 to 10")
        self.image_size, self.seed, self.crop_scale, self.flip = image_size, seed, crop_scale, flip
        self.augment_operations, self.augment_magnitude = augment_operations, augment_magnitude
        self.clean_captions, self.on_error = clean_captions, on_error
        self.left_out = Skipped(max_skipped)
        bad = self.left_out if on_error == "skip" else None
        mixture = read_mixture(annotations, image_dir, val_annotations, val_share, max_val, bad, mix)
        sized = {split: check_files(pictures, bad) for split, pictures in mixture.splits.items()}
        self._mixture = mixture._replace(splits={split: there.pictures for split, there in sized.items()})
        self.splits: dict[str, Sequence[CaptionedPicture]] = dict(self._mixture.splits)
        say_shared(sized)
        if on_error == "skip":
            self.splits |= {split: self._readable(split) for split in self.splits if split != "train"}
        foils = [] if foil_annotations is None else read_foils(foil_annotations, image_dir)
        self.foils = [row for row in foils if self._is_readable(row)]
        log.info("pictures: %s", ", ".join(f"{len(members)} {split}" for split, members in self.splits.items()))
        self.num_train = self._mixture.num_draws
        self._cache = PictureCache(len(self.splits["train"]), round(_CACHE_SIDE * image_size), int(cache_gb * 1e9))
        self._order = (-1, np.empty(0))  # epoch and its permutation
        self.skipped: set[int] = set()  # broken training pictures that this process has met

    def train_pair(self, serial: int) -> Pair | None:
        """Pair of an epoch's order; None if its picture is broken and `on_error` is "skip"."""
        epoch, position = divmod(serial, self.num_train)
        if self._order[0] != epoch:
            rng = np.random.Generator(np.random.PCG64((self.seed, epoch)))
            self._order = (epoch, self._mixture.order(rng))
        index = int(self._order[1][position])
        entry = self.splits["train"][index]
        rng = random.Random((self.seed << 48) + serial)
        if index in self.skipped:
            return None
        try:
            picture = self._cache.get(index, entry.path)
        except ValueError as error:
            if self.on_error == "raise":
                raise ValueError(f"{entry.where}: {error} (on_error=skip leaves it out)") from None
            self.skipped.add(index)
            self.left_out(ValueError(f"{entry.where}: {error}"))
            return None
        picture = random_resized_crop(picture, self.image_size, self.crop_scale, rng)
        if self.flip and rng.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture = random_augment(picture, self.augment_operations, self.augment_magnitude, rng)
        caption = entry.captions[int(rng.random() * len(entry.captions))]
        return Pair(np.asarray(picture), self._clean(caption), index)

    def num_pictures(self, split: str) -> int:
        return len(self._split(split))

    def picture(self, index: int, split: str) -> np.ndarray:
        return self._squared(self._decoded(self._split(split)[index]))

    def name_of(self, index: int, split: str) -> str:
        """The path of a picture as its list has it."""
        return self._split(split)[index].name

    def _squared(self, picture: Image.Image) -> np.ndarray:
        if self.recipe is not None:
            return shaped(picture, self.image_size, self.recipe)
        return squashed(picture, self.image_size)

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
        return self._squared(self._decoded(CaptionedPicture(path, (), row.where, "")))

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

    def _decoded(self, entry: CaptionedPicture) -> Image.Image:
        try:
            return read_picture(entry.path, (4 * self.image_size) ** 2 if self.recipe is None else WHOLE)
        except ValueError as error:
            hint = " (on_error=skip leaves it out)" if self.on_error == "raise" else ""
            raise ValueError(f"{entry.where}: {error}{hint}") from None

    def _readable(self, split: str) -> list[CaptionedPicture]:
        """The pictures of a split that can be decoded; the others are said."""
        readable = []
        for entry in self.splits[split]:
            try:
                self._decoded(entry)
                readable.append(entry)
            except ValueError as error:
                self.left_out(error)
        if not readable:
            raise ValueError(f"every picture of the split {split!r} is broken; the first: {self.splits[split][0].path}")
        return readable

    def _clean(self, caption: str) -> str:
        return clean_caption(caption) if self.clean_captions else caption

    def _split(self, split: str) -> list[CaptionedPicture]:
        if split not in self.splits:
            raise ValueError(f"there is no split {split!r} in annotations, only {sorted(self.splits)}")
        return self.splits[split]
