"""What ALBEF's fusion learns from a batch: matching, hidden words, and the telling words of short sentences.

Legend: B pairs of this process, S sentences and F foils a picture, L tokens of a sentence, T of a caption,
W text width, N rows.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from alignlab.losses.albef import HardNegatives, image_text_matching
from alignlab.losses.language import MaskedTokens, distilled_cross_entropy, hide_marked
from alignlab.losses.late_interaction import late_interaction_contrast
from alignlab.methods.parts.teaching import Teaching
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.bert import ImageState
from alignlab.types.pairs import Foils, PairBatch, Sentences

WORDS_GROUP = 32  # pairs among which words and patches are contrasted


class Rows(NamedTuple):
    """Texts in whole groups of B, the b-th row of a group being about picture b, as `AlbefEncoder.fuse` asks."""

    ids: Tensor  # (N, T) int64
    mask: Tensor  # (N, T) bool
    valid: Tensor  # (N,) bool


def foil_rows(batch: PairBatch) -> Rows:
    """(B, F, T) -> F groups of B; no row where a batch has no foils."""
    foils = batch.foils
    if foils is None:
        foils = Foils(batch.ids[:, None][:, :0], batch.mask[:, None][:, :0], batch.mask[:, :0])
    return Rows(*(_by_picture(part) for part in foils))


def words_loss(net: Albef, plain: Tensor, words: Tensor, image_tokens: Tensor, same: Tensor, pool: int) -> Tensor:
    """The contrast of words with patches, by which words find the patches that the fusion is to look at; ().

    plain (B, T, W), words (B, T) True = counts, image_tokens (B, S, image width), same (B, B). Pairs are contrasted in
    groups that divide `pool`, as those of ITM, so that they are the same however many processes share the batch.
    """
    compare, group = net.encoder.late_interaction, WORDS_GROUP if pool % WORDS_GROUP == 0 else pool
    patches = compare.patches(image_tokens)[:, 1:]
    return late_interaction_contrast(compare.words(plain), words, patches, net.token_scale.exp(), same, group)


class FusionInputs(NamedTuple):
    """What the towers give of a batch: texts as rows [B masked, B plain, F * B foils]."""

    tokens: Tensor  # (N, T, W)
    mask: Tensor  # (N, T) bool
    image: Tensor  # (B, S, image width)
    foils: Rows


def fusion_losses(
    net: Albef,
    batch: PairBatch,
    inputs: FusionInputs,
    masked: MaskedTokens,
    negatives: HardNegatives,
    teacher: Teaching | None,
    alpha: float,
    counts: Tensor,
    mask_id: int,
) -> dict[str, Tensor]:
    """itm_loss, mlm_loss, itm_accuracy, and salient_loss where the batch has sentences; counts (3,): what rows of ITM,
    hidden tokens and telling ones are divided by. Without a teacher the student is its own.
    """
    encoder, (tokens, mask, image, foils), size = net.encoder, inputs, len(batch.ids)
    states, plain = encoder.image_states(image), tokens[size : 2 * size]
    # Rows: masked, positive, negative text, foils, negative picture; all but the last look at their own picture.
    fused = encoder.fuse(
        torch.cat([tokens[: 2 * size], plain.index_select(0, negatives.text), tokens[2 * size :], plain]),
        torch.cat([mask[: 2 * size], batch.mask.index_select(0, negatives.text), foils.mask, batch.mask]),
        states,
        picture=negatives.image,
        masked_rows=slice(0, size),
        masked_position=masked.position,
    )
    itm = image_text_matching(net.matching_head(fused.matching), negatives.valid, counts[0], foils.valid)
    logits = encoder.language_logits(fused.masked)
    teacher_logits = logits.detach() if teacher is None else teacher.logits
    mlm = distilled_cross_entropy(logits, masked.label, masked.weight, teacher_logits, alpha, counts[1])
    losses = {"itm_loss": itm.loss, "mlm_loss": mlm, "itm_accuracy": itm.accuracy}
    if batch.sentences is not None:
        losses["salient_loss"] = telling_word_loss(encoder, batch.sentences, states, mask_id, counts[2])
    return losses


def telling_word_loss(
    encoder: AlbefEncoder, sentences: Sentences, states: list[ImageState], mask_id: int, total: Tensor
) -> Tensor:
    """Mean of -log p(telling token | rest of its sentence, picture) over `total` of them; ()."""
    rows, hidden = hide_telling(sentences, mask_id)
    tokens = encoder.text_tokens(hidden.ids, rows.mask)
    whole = slice(0, len(tokens))
    fused = encoder.fuse(tokens, rows.mask, states, masked_rows=whole, masked_position=hidden.position)
    logits = encoder.language_logits(fused.masked).float()
    loss = F.cross_entropy(logits, hidden.label, reduction="none")
    return (loss * hidden.weight).sum() / total.clamp_min(1.0)


def hide_telling(sentences: Sentences, mask_id: int) -> tuple[Rows, MaskedTokens]:
    """The sentences as rows, and with their telling words hidden."""
    rows = Rows(*(_by_picture(part) for part in (sentences.ids, sentences.mask, sentences.valid)))
    telling = _by_picture(sentences.telling) & rows.valid[:, None]
    return rows, hide_marked(rows.ids, telling, mask_id=mask_id)


def _by_picture(x: Tensor) -> Tensor:
    """(B, S, ...) -> (S * B, ...): one group of B after the other."""
    return x.transpose(0, 1).flatten(0, 1)
