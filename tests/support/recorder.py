"""A callback that keeps what training says, and a quiet training of a few steps."""

from collections.abc import Sequence

import lightning.pytorch as pl
from torch.utils.data import DataLoader


class Recorder(pl.Callback):
    """Losses (where a step returns one) and metrics of every batch."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if outputs:
            self.losses.append(outputs["loss"].item())
        self.rows.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fit(
    system: pl.LightningModule, steps: int, batches: list, more_callbacks: Sequence[pl.Callback] = (), **settings
) -> tuple[pl.Trainer, list[float]]:
    """Trains on the CPU without files on a list of batches again and again; the losses of all batches."""
    recorder = Recorder()
    trainer = pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[recorder, *more_callbacks], num_sanity_val_steps=0,
        **{"devices": 1, **settings},
    )  # fmt: skip
    trainer.fit(system, DataLoader(batches, batch_size=None))
    return trainer, recorder.losses
