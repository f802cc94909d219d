"""Scores of pictures with texts: the matching head where a model has one, else similarity.

Legend: N texts, T tokens, S image tokens, W width.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alignlab.tasks.pictures.subject import VisionLanguage
from alignlab.types.pairs import ImageEncoding, TextEncoding


class PairScore(NamedTuple):
    """How well one picture and one text fit."""

    score: float  # log-odds of a match with a matching head, else cosine similarity
    probability: float | None  # None where the model states none: CLIP only compares
    similarity: float  # cosine


def score_texts(subject: VisionLanguage, picture: Path, texts: list[str]) -> list[PairScore]:
    """Scores of N texts with one picture."""
    image = subject.encode_pictures([picture])
    text, _, mask = subject.encode_texts(texts)
    return scores_of(subject.system.net, image, text, mask)


def scores_of(net: nn.Module, image: ImageEncoding, text: TextEncoding, mask: Tensor) -> list[PairScore]:
    """Scores of N encoded texts, mask (N, T), with one encoded picture."""
    similarity = text.features.float() @ image.features.float()[0]
    if hasattr(net, "match"):
        with torch.no_grad():
            logits = net.match(net.image_states(image.tokens), text.tokens, mask).float()
        odds = logits[:, 1] - logits[:, 0]
        return _listed(odds, odds.sigmoid(), similarity)
    if getattr(net, "logit_bias", None) is not None:  # SigLIP is trained to tell pairs from others, one by one
        scale, bias = net.scale.detach(), net.logit_bias.detach()
        return _listed(similarity, (scale * similarity + bias).sigmoid(), similarity)
    return _listed(similarity, None, similarity)


def _listed(score: Tensor, probability: Tensor | None, similarity: Tensor) -> list[PairScore]:
    chances = [None] * len(score) if probability is None else probability.tolist()
    return [PairScore(*row) for row in zip(score.tolist(), chances, similarity.tolist(), strict=True)]
