"""Emoji scenes of which some training batches are poisoned, or left out altogether; for tests of what guards against spikes."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from alignlab.data.emoji.scene_pairs import EmojiScenePairs
from alignlab.data.image_text.batches import Pair
from alignlab.data.image_text.modules import PairDataModule
from alignlab.data.loaders import JointBatches
from alignlab.types.pairs import PairBatch

import torch
from torch.utils.data import DataLoader


class FewScenes(EmojiScenePairs):
    """The same 16 scenes again and again, under new numbers: a net knows them by heart within a hundred steps."""

    def train_pair(self, serial: int) -> Pair:
        return super().train_pair(serial % 16)._replace(image_id=serial)


class Gaps(JointBatches):
    """Joint batches of one epoch without some."""

    left_out: Sequence[int] = ()

    def __iter__(self) -> Iterator[list[int]]:
        joint = self.batch_size * self.world_size
        return (batch for batch in super().__iter__() if batch[0] // joint not in self.left_out)


class PoisonedScenes(PairDataModule):
    """Joint batches `poisoned` have their captions one picture further, or pixels that are no numbers; `left_out` never come."""

    def __init__(
        self,
        source: str,  # what the YAML names: few scenes take its place
        *,
        poisoned: Sequence[int] = (),
        left_out: Sequence[int] = (),
        poison: Literal["captions", "pixels"] = "captions",
        on_ranks: Sequence[int] = (0, 1),
        **settings: Any,
    ) -> None:
        super().__init__(FewScenes, **settings)
        self.poisoned, self.left_out, self.poison, self.on_ranks = poisoned, left_out, poison, on_ranks

    def train_dataloader(self) -> DataLoader:
        loader = super().train_dataloader()
        loader.batch_sampler.__class__ = Gaps
        loader.batch_sampler.left_out = self.left_out
        return loader

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        rank, ranks = self._ranks
        number = int(batch.image_id[0]) // (self.batch_size * ranks)
        if not isinstance(batch, PairBatch) or number not in self.poisoned or rank not in self.on_ranks:
            return batch
        if self.poison == "pixels":
            return batch._replace(image=batch.image * torch.nan)
        return batch._replace(ids=batch.ids.roll(1, 0), mask=batch.mask.roll(1, 0))
