"""The LightningDataModule of pictures with captions; the data set itself is its source."""

import itertools
import pkgutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from alignlab.data.image_text.batches import (
    FoilPictures,
    HeldOutPairs,
    LabelledPictures,
    NormalisedBatches,
    PairSource,
    RetrievalPictures,
    TrainPairs,
)
from alignlab.data.image_text.picture_cache import read_picture
from alignlab.data.image_text.vocabulary import (
    CaptionEncoder,
    load_tokenizer,
    train_tokenizer,
    vocabulary_of,
    with_words_of,
)
from alignlab.data.loaders import JointBatches, JointOrder, training_batches, whole_batches, workers_by_cores
from alignlab.data.recipes.contradictions import refuse_contradictions
from alignlab.data.recipes.pictures import WHOLE, shaped, squashed
from alignlab.files.writing import write_folder
from alignlab.models.released.source import CLIP_MEAN, CLIP_STD, read_released
from alignlab.models.released.words import words_of
from alignlab.models.released.writing import copy_source
from alignlab.types.pairs import ClassPrompts, PairBatch, Vocabulary, ZeroShotSet
from alignlab.types.recipes import PictureRecipe, TextRecipe


class PairDataModule(LightningDataModule):
    """Pictures with captions, for training, validation losses, retrieval and zero-shot classification.

    Args:
        source: the data set: a class with the methods of `PairSource`, or its dotted path. It is made by `setup`, from
            `image_size` and `of_source`.
        batch_size: pairs in a batch of one process.
        image_size: height and width in pixels; None: 224.
        context_length: largest number of ids of a caption; None: 32.
        long_captions: of longer ones: "cut" behind as many ids; "windows": in training another window of so
            many ids each time that the caption comes, elsewhere cut; "refuse".
        num_workers: processes that make batches; 0: the training process itself; None: by the cores of this machine
            (`workers_by_cores`).
        prefetch_factor: batches that each of them makes ahead.
        tokenizer: hub id or folder; None trains one on the captions.
        tokenizer_kind: of a tokenizer that is trained.
        vocab_size: its largest number of ids.
        append_sep: see `CaptionEncoder`, as `pad_to_multiple`.
        mean: of the normalisation, for pixels in [0, 1]; None: CLIP's, as `std`.
        like: a released CLIP or SigLIP, as `pretrained_clip` takes it: tokenizer, end token, padding, context length,
            size, resizing and normalisation of pictures are its own, unless it is given another `image_size`, or a
            CLIP a smaller `context_length`.
        of_source: what the data set's own constructor takes.

    Raises:
        ValueError: a number below its least value, or a setting that contradicts the net of `like`.
    """

    def __init__(
        self,
        source: str | Callable[..., PairSource],
        *,
        batch_size: int = 128,
        image_size: int | None = None,
        context_length: int | None = None,
        long_captions: Literal["cut", "windows", "refuse"] = "cut",
        num_workers: int | None = None,
        prefetch_factor: int = 4,
        tokenizer: str | None = None,
        tokenizer_kind: Literal["word", "wordpiece"] = "word",
        vocab_size: int = 4096,
        append_sep: bool = False,
        pad_to_multiple: int = 1,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        like: str | None = None,
        **of_source: Any,
    ) -> None:
        super().__init__()
        for key, value, least in (
            ("batch_size", batch_size, 1),
            ("num_workers", 0 if num_workers is None else num_workers, 0),
            ("prefetch_factor", prefetch_factor, 1),
            ("vocab_size", vocab_size, 6),
        ):
            if value < least:
                raise ValueError(f"{key} is {value}; it must be at least {least}")
        self.batch_size, self.long_captions = batch_size, long_captions
        self.num_workers, self.prefetch_factor = num_workers, prefetch_factor
        self._tokenizer_name, self._tokenizer_kind, self._vocab_size = tokenizer, tokenizer_kind, vocab_size
        self._append_sep, self._pad_to_multiple, self._taken_over = append_sep, pad_to_multiple, False
        self._released = None if like is None else read_released(like, "like")
        if self._released is not None:
            refuse_contradictions(self._released, image_size, context_length, append_sep, mean, std)
            sizes, own = self._released.sizes, self._released.picture
            image_size, context_length = image_size or sizes.image_size, context_length or sizes.context_length
            mean, std = own.mean, own.std
        self.image_size, self.context_length = image_size or 224, context_length or 32
        mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (mean or CLIP_MEAN, std or CLIP_STD))
        self._scale_and_shift = {torch.device("cpu"): (1 / (255 * std), mean / std)}  # by device
        make = pkgutil.resolve_name(source) if isinstance(source, str) else source
        self._make_source = partial(make, image_size=self.image_size, **of_source)
        self.source: PairSource | None = None
        self.vocabulary: Vocabulary | None = None

    batch_type = PairBatch

    def setup(self, stage: str | None = None) -> None:
        """Makes the source and the tokenizer, the same in every process."""
        if self.source is not None:
            return
        source, recipe = self._make_source(), None
        if self._released is not None:
            self.tokenizer, recipe = words_of(self._released, self._tokenizer_name)
            if hasattr(source, "recipe"):  # makes its pictures from files
                source.recipe = self._released.picture
        elif self._tokenizer_name is None:
            self.tokenizer = train_tokenizer(
                source.vocabulary_texts(), self._tokenizer_kind, self._vocab_size, source.held_out_texts()
            )
        else:
            self.tokenizer = load_tokenizer(self._tokenizer_name)
            if self._taken_over:
                self.tokenizer = with_words_of(self.tokenizer, source.vocabulary_texts())
        self._encode = CaptionEncoder(
            self.tokenizer, self.context_length, self._append_sep, self._pad_to_multiple, recipe
        )
        losses = self._encode.warn_of_losses(itertools.chain(source.vocabulary_texts(), source.held_out_texts()))
        if losses.cut and self.long_captions == "refuse":
            raise ValueError(
                f"long_captions=refuse: {losses.cut} captions don't fit into context_length={self.context_length}; "
                "a larger context_length, or long_captions=windows, takes them"
            )
        self.vocabulary = vocabulary_of(self.tokenizer, recipe)
        self.source = source

    @property
    def recipes(self) -> tuple[TextRecipe, PictureRecipe]:
        """What rows of ids and pictures are made by."""
        if self._released is not None:
            return self._encode.recipe, self._released.picture._replace(size=self.image_size)
        scale, shift = (x.flatten() for x in self._scale_and_shift[torch.device("cpu")])
        std = 1 / (255 * scale)
        return self._encode.recipe, PictureRecipe(self.image_size, tuple((shift * std).tolist()), tuple(std.tolist()))

    def save_source(self, folder: Path) -> None:
        """Keeps what of the net of `like` isn't weights, so that nobody needs its folder any more."""
        if self._released is not None and not folder.exists():
            write_folder(folder, lambda place: copy_source(self._released, place, self.tokenizer))

    @property
    def source_folder(self) -> Path | None:
        """Where the tokenizer of the net of `like` lies in transformers' format; None where it doesn't."""
        return self._released.place if self._released and self._released.layout == "transformers" else None

    def reuse_tokenizer(self, folder: Path) -> None:
        """Takes a run's tokenizer, if it is there, instead of training one: its ids belong to the run's weights,
        whatever a new one would be. Words that only these data have get ids behind them.
        """
        if self._tokenizer_name is None and self._released is None and folder.is_dir():
            self._tokenizer_name, self._taken_over = str(folder), True

    @property
    def _ranks(self) -> tuple[int, int]:
        """This process's rank and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> DataLoader:
        """Batches of `PairBatch`; incomplete ones are dropped."""
        rows = TrainPairs(self.source, self._encode, windows=self.long_captions == "windows")
        workers = workers_by_cores(self._ranks[1]) if self.num_workers is None else self.num_workers
        return training_batches(rows, self.batch_size, self.trainer, workers, self.prefetch_factor)

    def val_dataloader(self) -> DataLoader:
        """Held-out pairs, each picture with its first caption; the last batch may be smaller, equally on all ranks."""
        order = JointOrder(self.source.num_pictures("val"), repeats=True)
        return whole_batches(
            HeldOutPairs(self.source, "val", self._encode),
            JointBatches(order, self.batch_size, *self._ranks, last="share"),
        )

    def retrieval_dataloader(self, split: str = "val") -> NormalisedBatches:
        """Pictures rank, rank + world size, ...

        of a split with all their captions, normalised; nothing is padded or repeated.
        """
        rank, world_size = self._ranks
        shard = list(range(rank, self.source.num_pictures(split), world_size))
        return self._normalised(RetrievalPictures(self.source, split, self._encode), shard)

    def zero_shot_sets(self) -> dict[str, ZeroShotSet]:
        """Zero-shot problems of this data set, normalised and whole on every rank: evaluation deals the batches out
        itself.
        """
        sets = {}
        for name, pictures in self.source.zero_shot_pictures().items():
            ids, mask = self._encode([prompt for prompts in pictures.prompts for prompt in prompts])
            shape = (len(pictures.names), -1, ids.shape[1])
            batches = self._normalised(LabelledPictures(pictures), list(range(len(pictures.labels))))
            sets[name] = ZeroShotSet(batches, ClassPrompts(pictures.names, ids.view(shape), mask.view(shape)))
        return sets

    def foil_sets(self, max_rows: int | None = None) -> dict[str, NormalisedBatches]:
        """Batches of `FoilBatch` of every set of near misses that the data set has: rows rank, rank + world size, ...,
        of at most `max_rows`, normalised.
        """
        rank, world_size = self._ranks
        sets = self.source.foil_sets(max_rows).items()
        return {
            name: self._normalised(FoilPictures(rows, self._encode), range(rank, len(rows.captions), world_size))
            for name, rows in sets
        }

    def encode_texts(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Ids (N, T) int64 and mask (N, T) bool of any texts."""
        return self._encode(texts)

    def pixels(self, picture: Path | Image.Image) -> Tensor:
        """(3, H, W) uint8 of a file, or of a picture in RGB, read and resized as those of a validation; ValueError
        names a broken file.
        """
        if isinstance(picture, Path):
            picture = read_picture(picture, WHOLE if self._released else (4 * self.image_size) ** 2)
        if self._released is None:
            pixels = squashed(picture, self.image_size)
        else:
            pixels = shaped(picture, self.image_size, self._released.picture)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def picture(self, index: int, split: str = "val") -> Image.Image:
        """A picture as the models see it, not normalised."""
        return Image.fromarray(self.source.picture(index, split))

    def name_of(self, index: int, split: str = "val") -> str | None:
        """A picture's file, as the list of pictures names it; None for pictures that are drawn."""
        return self.source.name_of(index, split) if hasattr(self.source, "name_of") else None

    def caption(self, index: int, split: str = "val") -> str:
        """A picture's first caption."""
        return self.source.captions_of(index, split)[0]

    def normalise(self, image: Tensor) -> Tensor:
        """(..., 3, H, W) uint8 to float: (x / 255 - mean) / std."""
        if image.device not in self._scale_and_shift:  # copied once: a copy every step would make the host wait
            on_host = self._scale_and_shift[torch.device("cpu")]
            self._scale_and_shift[image.device] = tuple(x.to(image.device) for x in on_host)
        scale, shift = self._scale_and_shift[image.device]
        return image.float() * scale - shift

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalises pictures on the device, in float32, and gives them the type that the trainer's precision asks
        for.
        """
        if isinstance(batch, self.batch_type) and batch.image.dtype == torch.uint8:
            image = self.normalise(batch.image)
            return batch._replace(image=self.trainer.precision_plugin.convert_input(image) if self.trainer else image)
        return batch

    def _normalised(self, dataset: Any, shard: Sequence[int]) -> NormalisedBatches:
        batches = [shard[start : start + self.batch_size] for start in range(0, len(shard), self.batch_size)]
        return NormalisedBatches(whole_batches(dataset, batches), self.normalise)
