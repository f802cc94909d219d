"""What ALBEF's momentum teacher says of a batch.

Legend: B batch of this process, D joint embedding, M masked positions, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from alignlab.losses.language import MaskedTokens
from alignlab.models.albef import AlbefEncoder
from alignlab.types.pairs import PairBatch


class Teaching(NamedTuple):
    """What the teacher says of a batch."""

    image: Tensor  # (B, D)
    text: Tensor  # (B, D)
    logits: Tensor | None  # (M, V) at the masked positions


@torch.no_grad()
def teach(teacher: AlbefEncoder, batch: PairBatch, masked: MaskedTokens | None) -> Teaching:
    """The teacher's features, and its opinion on the masked tokens where there are any."""
    image, size = teacher.encode_image(batch.image), len(batch.image)
    if masked is None:
        return Teaching(image.features, teacher.encode_text(batch.ids, batch.mask).features, None)
    tokens = teacher.text_tokens(torch.cat([masked.ids, batch.ids]), torch.cat([batch.mask, batch.mask]))
    hidden = teacher.fuse(
        tokens[:size],
        batch.mask,
        teacher.image_states(image.tokens),
        masked_rows=slice(0, size),
        masked_position=masked.position,
    ).masked
    return Teaching(image.features, teacher.text_features(tokens[size:]), teacher.language_logits(hidden))
