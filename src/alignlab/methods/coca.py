"""CoCa: a contrast of pictures with captions, and captions written word by word (arXiv:2205.01917).

Legend: B pairs, T tokens, D joint embedding.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignlab.distributed.collectives import world_size
from alignlab.distributed.shards import clamp_parameter
from alignlab.losses.contrastive import InfoNce
from alignlab.methods.method import WHOLE
from alignlab.methods.pairs import PairMethod
from alignlab.methods.parts.blind import Blind, contrast
from alignlab.methods.step import Step, StepOutput
from alignlab.models.albef import AlbefEncoder
from alignlab.models.attention import take_token
from alignlab.types.pairs import PairBatch, PairIds, TextEncoding


class Coca(AlbefEncoder):
    """Text layers encode, fusion layers write (sec. 3.2). Ours: a text is its last token, pictures aren't pooled."""

    def __init__(self, vision: Callable[[], nn.Module], *, temperature: float = 0.07, **settings) -> None:
        super().__init__(vision, causal=True, **settings)
        self.temperature = nn.Parameter(torch.tensor([temperature]))

    @property
    def scale(self) -> Tensor:
        """(1,) what similarities are multiplied with."""
        return 1 / self.temperature

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextEncoding:
        """(B, T), (B, T) -> features (B, D) and tokens."""
        tokens = self.text_tokens(ids, mask)
        return TextEncoding(self.text_features(take_token(tokens, (mask.sum(1) - 1).clamp_min(0))), tokens)


class CocaMethod(PairMethod):
    """Trains `Coca`: contrast + caption_weight * mean over tokens of -log p(token | tokens before, picture) (eq. 1-3).

    Args:
        net: builds a `Coca`; see `PairMethod` for the rest.
        caption_weight: of the captions beside the contrast's 1; 2 in the paper.
    """

    within_batch = "captions are those of the whole step; micro_batch_size is for CLIP and SigLIP only"
    shown = ("train/contrastive_loss", "train/caption_loss", "val/text_to_image_recall_at_1")
    renames = {"net.encoder.": "net."}  # noqa: RUF012 - of ALBEF

    def __init__(self, net: Callable[..., Coca], *, caption_weight: float = 2.0, **settings) -> None:
        super().__init__(net, **settings)
        self.contrast, self.caption_weight = InfoNce(), caption_weight

    def forward(self, batch: PairBatch, step: Step = WHOLE, joint: bool = True) -> StepOutput:
        """Both losses; over the joint batch of all ranks unless `joint` is False."""
        net, (size, length) = self.net, batch.ids.shape
        image, text = net.encode_image(batch.image), net.encode_text(batch.ids, batch.mask)
        ids = PairIds(batch.image_id, batch.text_id)
        contrast = self.contrast(image.features, text.features, net.scale, ids=ids, gather=joint) / step.total
        position = torch.arange(size * length, device=batch.ids.device).view(size, length)[:, :-1].flatten()
        places = {"masked_rows": slice(0, size), "masked_position": position}
        fused = net.fuse(text.tokens, batch.mask, net.image_states(image.tokens), **places)
        logits, target = net.language_logits(fused.masked).float(), batch.ids[:, 1:].flatten()
        wanted = batch.mask[:, 1:].flatten()
        share = step.share(batch, lambda each: each.mask[:, 1:].sum()) if joint else 1.0
        caption = (F.cross_entropy(logits, target, reduction="none") * wanted).sum() / wanted.sum().clamp_min(1) * share
        metrics = {"contrastive_loss": contrast, "caption_loss": caption}
        state = {"temperature": net.temperature.detach().squeeze()}
        return StepOutput(contrast + self.caption_weight * caption, metrics, state)

    def blind(self, batch: PairBatch) -> dict[str, Blind]:
        """Of the contrast."""
        return {"contrastive_loss": contrast(len(batch.image) * world_size())}

    def after_step(self, step: Step) -> None:
        """Clamps the temperature, as in CLIP."""
        clamp_parameter(self.net.temperature, 0.01, 1.0)

    def validate(self, batch: PairBatch, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """The same losses on held-out pairs, each rank by itself."""
        output = self(batch, joint=False) if len(batch.ids) > 1 else None
        return {"loss": output.loss, **output.metrics} if output else {}
