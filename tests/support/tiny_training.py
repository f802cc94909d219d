"""Batches of random pairs, and Lightning training of a few steps on them, for tests of two-tower systems."""

from collections.abc import Sequence

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from alignlab.types.pairs import PairBatch, Vocabulary

WORDS = Vocabulary(size=40, pad_id=0, cls_id=1, sep_id=2, mask_id=3)


def pairs(size: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32) -> PairBatch:
    """Pictures of 16 x 16, texts of 3 to 7 tokens."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(7) < torch.randint(3, 8, (size, 1), generator=g)
    ids = torch.randint(4, WORDS.size, (size, 7), generator=g).masked_fill(~mask, WORDS.pad_id)
    index = torch.arange(size) + 100 * seed
    return PairBatch(torch.randn(size, 3, 16, 16, generator=g).to(dtype), ids, mask, index, index)


class Recorder(pl.Callback):
    """Keeps the loss of every batch."""

    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        self.losses.append(outputs["loss"].item())


def fit(
    system: pl.LightningModule,
    steps: int,
    batches: list[PairBatch],
    more_callbacks: Sequence[pl.Callback] = (),
    **settings,
) -> tuple[pl.Trainer, list[float]]:
    """Train on the CPU without files; the losses of all batches."""
    recorder = Recorder()
    trainer = pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[recorder, *more_callbacks], num_sanity_val_steps=0,
        **{"devices": 1, **settings},
    )  # fmt: skip
    trainer.fit(system, DataLoader(batches, batch_size=None))
    return trainer, recorder.losses
