"""CLIP and SigLIP (arXiv:2103.00020; arXiv:2303.15343), told apart by their loss and temperature alone.

Legend: B pictures, N texts, T tokens, D joint embedding.
"""

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from alignlab.distributed.collectives import world_size
from alignlab.losses.contrastive import SigLip
from alignlab.methods.method import WHOLE
from alignlab.methods.pairs import PairMethod
from alignlab.methods.parts.blind import Blind, contrast, sigmoid_contrast
from alignlab.methods.parts.cached_gradient import cached_gradient_loss, check_rows_are_independent
from alignlab.methods.step import Step, StepOutput
from alignlab.models.clip import Clip, PairEmbeddings
from alignlab.types.pairs import ImageEncoding, PairBatch, PairIds, TextEncoding

log = logging.getLogger(__name__)


class ClipMethod(PairMethod):
    """Trains `Clip` with a contrastive loss over the joint batch of all ranks, which exchange their vectors inside the
    loss.

    Args:
        net: builds a `Clip`; see `PairMethod` for the rest.
        loss: `InfoNce` or `SigLip`.
        micro_batch_size: pairs that go through the net at a time; the loss still sees the whole batch, and its
            gradient is the same (`cached_gradient_loss`). None: the batch in one go.
    """

    within_batch = (
        "a batch_size k times as large with micro_batch_size is the exact way to the gradient of a larger batch"
    )

    shown = ("train/loss", "train/temperature", "val/text_to_image_recall_at_1")
    renames = {"net.encoder.vision.": "net.vision."}  # noqa: RUF012 - of ALBEF

    def __init__(
        self, net: Callable[..., Clip], loss: nn.Module, *, micro_batch_size: int | None = None, **settings
    ) -> None:
        if micro_batch_size is not None and micro_batch_size < 1:
            raise ValueError(f"micro_batch_size is {micro_batch_size}; it must be at least 1, or null")
        super().__init__(net, **settings)
        self.loss, self.micro_batch_size = loss, micro_batch_size
        if isinstance(loss, SigLip) and getattr(self.net, "logit_bias", None) is None:
            log.warning("the sigmoid loss begins without a bias: net.logit_bias=-10.0 is the paper's")
        self.backward_within = micro_batch_size is not None
        if self.backward_within:
            check_rows_are_independent(self.net)

    def encode_image(self, image: Tensor) -> ImageEncoding:
        """(B, 3, H, W) -> features (B, D)."""
        return ImageEncoding(self.net.encode_image(image), None)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextEncoding:
        """(N, T), (N, T) -> features (N, D)."""
        return TextEncoding(self.net.encode_text(ids, mask), None)

    def forward(self, batch: PairBatch, step: Step = WHOLE) -> StepOutput:
        """The contrastive loss of the joint batch."""
        parts, compare = self._parts(batch), partial(self._compare, batch, gather=True)
        if len(parts) == 1:
            loss = compare(*self._embed(batch))
        else:
            loss = cached_gradient_loss(self._embed, parts, compare, num_rowwise=2, weight=step.scale / step.total)
        return StepOutput(loss / step.total, state={"temperature": self.net.temperature.detach().squeeze()})

    def blind(self, batch: PairBatch) -> dict[str, Blind]:
        """Of the contrast over the joint batch."""
        of = sigmoid_contrast if isinstance(self.loss, SigLip) else contrast
        return {"loss": of(len(batch.image) * world_size())}

    def after_step(self, step: Step) -> None:
        """Clamps the temperature."""
        self.net.clamp_temperature()

    def validate(self, batch: PairBatch, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """The same loss on held-out pairs, each rank by itself since their last batches may differ in size."""
        if len(batch.image) < 2:
            return {}
        parts = [self._embed(part) for part in self._parts(batch)]
        image, text = (torch.cat(rows) for rows in list(zip(*parts, strict=True))[:2])
        return {"loss": self._compare(batch, image, text, *parts[0][2:], gather=False)}

    def _parts(self, batch: PairBatch) -> list[PairBatch]:
        size = self.micro_batch_size or len(batch.image)
        # Sentences and foils are for nets that fuse.
        return [PairBatch(*part) for part in zip(*(x.split(size) for x in batch[:5]), strict=True)]

    def _embed(self, batch: PairBatch) -> PairEmbeddings:
        return self.net(batch.image, batch.ids, batch.mask)

    def _compare(
        self, batch: PairBatch, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor | None, *, gather: bool
    ) -> Tensor:
        return self.loss(image, text, scale, bias, ids=PairIds(batch.image_id, batch.text_id), gather=gather)
