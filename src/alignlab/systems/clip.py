"""Training of two-tower models: CLIP and SigLIP, told apart by their loss and temperature alone.

Legend: B pictures, N texts, T tokens, D joint embedding.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from alignlab.losses.contrastive import PairIds
from alignlab.models.block_settings import set_blocks
from alignlab.models.clip import Clip, PairEmbeddings
from alignlab.systems.accumulation import StepSums, divisor, for_backward, place_of, say_what_differs
from alignlab.systems.averages import logged_means
from alignlab.systems.cached_gradient import (
    backward_weight,
    cached_gradient_loss,
    check_rows_are_independent,
    check_strategy,
    several_backward_passes,
)
from alignlab.types.pairs import ImageEncoding, PairBatch, TextEncoding, Vocabulary


class ClipSystem(pl.LightningModule):
    """Trains `Clip` with a contrastive loss over the joint batch of all ranks.

    micro_batch_size: pairs that go through the net at a time; the loss still sees the whole batch, and its gradient is the
    same (`cached_gradient_loss`). None: the batch in one go. gradient_checkpointing: all towers compute activations again in the
    backward pass. compile: True or arguments of `torch.compile`, for the towers' blocks.
    """

    def __init__(
        self,
        net: Callable[..., Clip],
        loss: nn.Module,
        *,
        vocabulary: Vocabulary,
        optim: Callable[..., dict],
        micro_batch_size: int | None = None,
        gradient_checkpointing: bool = False,
        compile: bool | dict[str, Any] = False,
    ) -> None:
        super().__init__()
        if micro_batch_size is not None and micro_batch_size < 1:
            raise ValueError(f"model.micro_batch_size={micro_batch_size} must be at least 1, or null")
        self.build, self.loss, self.vocabulary, self.optim = net, loss, vocabulary, optim
        self.micro_batch_size = micro_batch_size
        self.blocks = {"gradient_checkpointing": gradient_checkpointing, "compile": compile}
        self.net: Clip | None = None
        self._sums = StepSums()

    def configure_model(self) -> None:
        """Build the net, once."""
        if self.net is None:
            self.net = self.build(vocab_size=self.vocabulary.size)
            set_blocks(self.net, **self.blocks)
            if self.micro_batch_size is not None:
                check_rows_are_independent(self.net, "model.micro_batch_size")

    def setup(self, stage: str) -> None:
        """Refuse what can't work before anything is built."""
        if stage != "fit":
            return
        if self.micro_batch_size is not None:
            check_strategy(self.trainer, "model.micro_batch_size")
        joint = "data.batch_size times as large with model.micro_batch_size is the exact way"
        say_what_differs(self.trainer, f"{joint} to the gradient of a larger batch")

    def encode_image(self, image: Tensor) -> ImageEncoding:
        """(B, 3, H, W) -> features (B, D)."""
        return ImageEncoding(self.net.encode_image(image), None)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextEncoding:
        """(N, T), (N, T) -> features (N, D)."""
        return TextEncoding(self.net.encode_text(ids, mask), None)

    def training_step(self, batch: PairBatch, batch_index: int) -> Tensor:
        """Contrastive loss of one batch; ranks exchange their vectors inside the loss."""
        place = place_of(self, batch_index)
        if self.micro_batch_size is not None and place.index == 0:
            self.optimizers(use_pl_optimizer=False).zero_grad()
        parts, compare = self._parts(batch), partial(self._loss, batch, gather=True)
        if len(parts) == 1:
            loss = compare(*self._embed(batch))
        else:
            weight = backward_weight(self.trainer) * divisor(self.trainer) / place.total
            with several_backward_passes(self):
                loss = cached_gradient_loss(self._embed, parts, compare, num_rowwise=2, weight=weight)
        sums = self._sums.add(place, {"train/loss": loss / place.total})
        self.log_dict(logged_means(self, sums), batch_size=len(batch.image))
        self.log("train/temperature", (-self.net.temperature.detach()).exp().squeeze(), batch_size=len(batch.image))
        return for_backward(self, loss / place.total)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Lightning's moment, after `training_step`, is too late for a step that has put gradients there: it does this itself."""
        if self.micro_batch_size is None:
            optimizer.zero_grad()

    def on_train_batch_end(self, *_) -> None:
        """Clamp the temperature after the optimizer's step."""
        self.net.clamp_temperature()

    def validation_step(self, batch: PairBatch, batch_index: int) -> None:
        """The same loss on held-out pairs, each rank by itself since their last batches may differ in size."""
        if len(batch.image) > 1:
            parts = [self._embed(part) for part in self._parts(batch)]
            image, text = (torch.cat(rows) for rows in list(zip(*parts, strict=True))[:2])
            loss = self._loss(batch, image, text, *parts[0][2:], gather=False)
            self.log("val/loss", loss, batch_size=len(batch.image), sync_dist=True)

    def configure_optimizers(self) -> dict:
        """Whatever is trainable in the net, with a schedule over the whole run."""
        return self.optim(self.net, total_steps=self.trainer.estimated_stepping_batches)

    def _parts(self, batch: PairBatch) -> list[PairBatch]:
        size = self.micro_batch_size or len(batch.image)
        return [PairBatch(*part) for part in zip(*(x.split(size) for x in batch), strict=True)]

    def _embed(self, batch: PairBatch) -> PairEmbeddings:
        return self.net(batch.image, batch.ids, batch.mask)

    def _loss(
        self, batch: PairBatch, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor | None, *, gather: bool
    ) -> Tensor:
        return self.loss(image, text, scale, bias, ids=PairIds(batch.image_id, batch.text_id), gather=gather)
