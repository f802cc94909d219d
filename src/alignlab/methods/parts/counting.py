"""What ALBEF's means run over, so that the batches of a step can be divided by the count of the whole step.

Legend: B pairs of this process.
"""

import torch
from torch import Tensor

from alignlab.losses.language import MaskedTokens
from alignlab.methods.parts.fusion_losses import hide_telling
from alignlab.types.pairs import PairBatch


def counts_of(batch: PairBatch, valid: Tensor, masked: MaskedTokens) -> Tensor:
    """(3,) rows of ITM, hidden tokens, hidden telling tokens; valid (B,): which pairs have hard negatives."""
    foils = 0 if batch.foils is None else batch.foils.valid.sum()
    telling = torch.zeros((), device=valid.device)
    if batch.sentences is not None:
        telling = hide_telling(batch.sentences, mask_id=0)[1].weight.sum()
    return torch.stack([len(batch.ids) + 2.0 * valid.sum() + foils, masked.weight.sum(), telling])
