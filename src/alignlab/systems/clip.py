"""Training of two-tower models: CLIP and SigLIP, told apart by their loss and temperature alone.

Legend: B pictures, N texts, T tokens, D joint embedding.
"""

from collections.abc import Callable

import lightning.pytorch as pl
from torch import Tensor, nn

from alignlab.distributed import reduce_mean
from alignlab.losses.contrastive import PairIds
from alignlab.models.clip import Clip
from alignlab.types import ImageEncoding, PairBatch, TextEncoding, Vocabulary


class ClipSystem(pl.LightningModule):
    """Trains `Clip` with a contrastive loss over the joint batch of all ranks."""

    def __init__(
        self,
        net: Callable[..., Clip],
        loss: nn.Module,
        *,
        vocabulary: Vocabulary,
        optim: Callable[..., dict],
    ) -> None:
        super().__init__()
        self.build, self.loss, self.vocabulary, self.optim = net, loss, vocabulary, optim
        self.net: Clip | None = None

    def configure_model(self) -> None:
        """Build the net, once."""
        if self.net is None:
            self.net = self.build(vocab_size=self.vocabulary.size)

    def encode_image(self, image: Tensor) -> ImageEncoding:
        """(B, 3, H, W) -> features (B, D)."""
        return ImageEncoding(self.net.encode_image(image), None)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextEncoding:
        """(N, T), (N, T) -> features (N, D)."""
        return TextEncoding(self.net.encode_text(ids, mask), None)

    def training_step(self, batch: PairBatch, batch_index: int) -> Tensor:
        """Contrastive loss of one batch; ranks exchange their vectors inside the loss."""
        loss = self._loss(batch, gather=True)
        logged = loss.detach()
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:
            logged = reduce_mean(logged)
        self.log("train/loss", logged, prog_bar=True, batch_size=len(batch.image))
        self.log("train/temperature", (-self.net.temperature.detach()).exp().squeeze(), batch_size=len(batch.image))
        return loss

    def on_train_batch_end(self, *_) -> None:
        """Clamp the temperature after the optimizer's step."""
        self.net.clamp_temperature()

    def validation_step(self, batch: PairBatch, batch_index: int) -> None:
        """The same loss on held-out pairs, each rank by itself since their last batches may differ in size."""
        if len(batch.image) > 1:
            loss = self._loss(batch, gather=False)
            self.log("val/loss", loss, prog_bar=True, batch_size=len(batch.image), sync_dist=True)

    def configure_optimizers(self) -> dict:
        """Whatever is trainable in the net, with a schedule over the whole run."""
        return self.optim(self.net, total_steps=self.trainer.estimated_stepping_batches)

    def _loss(self, batch: PairBatch, gather: bool) -> Tensor:
        pairs = self.net(batch.image, batch.ids, batch.mask)
        ids = PairIds(batch.image_id, batch.text_id)
        return self.loss(pairs.image, pairs.text, pairs.scale, pairs.bias, ids=ids, gather=gather)
