"""Recall at k between pictures and texts: both ways, several captions a picture, exact where scores are tied.

Legend: I pictures, N texts, D joint embedding, Q queries of a chunk, C candidates of a query, k first places.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FIRST_PLACES = (1, 5, 10)


class Candidates(NamedTuple):
    """For every query its best candidates and the scores that order them anew."""

    index: Tensor  # (Q, k) int64
    score: Tensor  # (Q, k)


class Reranking(NamedTuple):
    """Candidates of both directions."""

    text_to_image: Candidates  # N queries
    image_to_text: Candidates  # I queries


def similarity(query: Tensor, candidate: Tensor) -> Tensor:
    """Inner products in float32, also under autocast: (Q, D), (C, D) -> (Q, C)."""
    with torch.autocast(query.device.type, enabled=False):
        return query.float() @ candidate.float().T


def check_partners(image_of_text: Tensor, num_texts: int, num_images: int) -> None:
    """Raise ValueError unless every text has a picture and every picture at least one text."""
    if len(image_of_text) != num_texts:
        raise ValueError(f"image_of_text names the pictures of {len(image_of_text)} texts, but there are {num_texts}")
    if num_texts == 0 or num_images == 0:
        raise ValueError(f"retrieval needs pictures and texts, got {num_images} pictures and {num_texts} texts")
    low, high = int(image_of_text.min()), int(image_of_text.max())
    if low < 0 or high >= num_images:
        raise ValueError(f"a text belongs to picture {low if low < 0 else high}, outside 0..{num_images - 1}")
    lonely = (torch.bincount(image_of_text, minlength=num_images) == 0).nonzero().flatten()
    if len(lonely):
        raise ValueError(f"{len(lonely)} of {num_images} pictures have no text, the first is picture {int(lonely[0])}")


def hit_probability(better: Tensor, tied: Tensor, positives: Tensor, k: int) -> Tensor:
    """Chance that a positive is among the first k, tied candidates standing in random order.

    `better` candidates score above the best positive and `tied` share its score, `positives` of these being right.
    With s = min(max(k - better, 0), tied) places left, 1 - prod_{j < s} (tied - positives - j) / (tied - j). A model
    that scores everything the same is thus given exactly chance, never 100 %, whatever the order of the data. All (Q,)
    -> (Q,) in [0, 1].
    """
    places = k - better
    miss = torch.ones(better.shape, dtype=torch.float32, device=better.device)
    for j in range(k):
        still = (tied - positives - j).clamp(min=0) / (tied - j).clamp(min=1)
        miss = torch.where(places > j, miss * still, miss)
    return 1 - miss


def hits(score: Tensor, positive: Tensor, ks: Sequence[int]) -> Tensor:
    """Probability of a hit for each query and k: scores (Q, C), right candidates (Q, C) bool -> (Q, len(ks)).

    NaN counts as the lowest score, so a diverged model gets chance.
    """
    standing = _standing(score, positive)
    return torch.stack([hit_probability(*standing, k) for k in ks], dim=1)


def _standing(score: Tensor, positive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many candidates are better than the best right one, how many are level with it, how many of these right."""
    score = torch.where(score.isnan(), -torch.inf, score)
    best = score.masked_fill(~positive, -torch.inf).amax(1, keepdim=True)
    level = score == best
    return (score > best).sum(1), level.sum(1), (level & positive).sum(1)


def lift(old: Tensor, candidates: Candidates) -> Tensor:
    """Give candidates their new scores and put all others below them in their old order: (Q, C) -> (Q, C)."""
    new = candidates.score.to(old.dtype).nan_to_num(nan=-1e4, posinf=1e4, neginf=-1e4)
    below = old - old.amax(1, keepdim=True) + (new.amin(1, keepdim=True) - 1)
    return below.scatter(1, candidates.index, new)


def _recall(
    rows: Callable[[slice], Tensor], owner: Tensor, candidate_owner: Tensor, ks: Sequence[int], chunk: int
) -> list[Tensor]:
    """Mean hits of all queries, where a candidate is right if it has the query's owner (the picture of both)."""
    ranks = []
    for start in range(0, len(owner), chunk):
        part = slice(start, min(start + chunk, len(owner)))
        ranks.append(hits(rows(part), owner[part, None] == candidate_owner, ks))
    return list(torch.cat(ranks).mean(0))


def _named(text_to_image: list[Tensor], image_to_text: list[Tensor], ks: Sequence[int]) -> dict[str, float]:
    values = torch.stack(text_to_image + image_to_text).tolist()  # the one wait for the device
    names = [f"{way}_recall_at_{k}" for way in ("text_to_image", "image_to_text") for k in ks]
    return dict(zip(names, values, strict=True))


def recall_at_k(score: Tensor, image_of_text: Tensor, ks: Sequence[int] = FIRST_PLACES) -> dict[str, float]:
    """Share of queries with a right answer among the first k, both ways, from all scores (N texts, I pictures).

    A text is right for one picture, a picture for each of its texts; tied scores count as in `hit_probability`.
    `image_of_text` (N,) int64. Returns `text_to_image_recall_at_<k>` and `image_to_text_recall_at_<k>` in [0, 1].
    Raises ValueError where a text or a picture has no partner.
    """
    num_texts, num_images = score.shape
    check_partners(image_of_text, num_texts, num_images)
    pictures, whole = torch.arange(num_images, device=score.device), max(num_texts, num_images)
    forth = _recall(lambda part: score[part], image_of_text, pictures, ks, whole)
    back = _recall(lambda part: score.T[part], pictures, image_of_text, ks, whole)
    return _named(forth, back, ks)


def recall_from_features(
    text: Tensor,
    image: Tensor,
    image_of_text: Tensor,
    *,
    reranking: Reranking | None = None,
    ks: Sequence[int] = FIRST_PLACES,
    chunk: int = 1024,
) -> dict[str, float]:
    """The same as `recall_at_k` of text (N, D) @ image (I, D).T, `chunk` queries at a time.

    With a `reranking`, a query's own candidates stand first in the order of their new scores and all others follow in
    the order of their similarity, so nothing is lost. Memory: about 12 bytes for each of chunk * max(N, I) pairs.
    """
    forth, back, pictures = _both_ways(text, image, image_of_text, reranking)
    return _named(
        _recall(forth, image_of_text, pictures, ks, chunk), _recall(back, pictures, image_of_text, ks, chunk), ks
    )


def ranks_from_features(
    text: Tensor, image: Tensor, image_of_text: Tensor, *, reranking: Reranking | None = None, chunk: int = 1024
) -> tuple[Tensor, Tensor]:
    """The place of each query's best right answer, 1 at best: of texts among pictures (N,), of pictures among texts
    (I,); arguments as of `recall_from_features`.

    Candidates with equal scores stand in random order, whose mean this is, so that it may lie between two places.
    """
    forth, back, pictures = _both_ways(text, image, image_of_text, reranking)
    return _ranks(forth, image_of_text, pictures, chunk), _ranks(back, pictures, image_of_text, chunk)


def _ranks(rows: Callable[[slice], Tensor], owner: Tensor, candidate_owner: Tensor, chunk: int) -> Tensor:
    parts = []
    for start in range(0, len(owner), chunk):
        part = slice(start, min(start + chunk, len(owner)))
        better, tied, right = _standing(rows(part), owner[part, None] == candidate_owner)
        parts.append(1 + better + (tied - right) / (right + 1))  # wrong ones before the first of `right` among `tied`
    return torch.cat(parts)


def _both_ways(
    text: Tensor, image: Tensor, image_of_text: Tensor, reranking: Reranking | None
) -> tuple[Callable[[slice], Tensor], Callable[[slice], Tensor], Tensor]:
    """Scores of some of the texts and of some of the pictures, and the pictures' numbers."""
    check_partners(image_of_text, len(text), len(image))

    def rows(query: Tensor, candidate: Tensor, new: Candidates | None) -> Callable[[slice], Tensor]:
        def chunk_rows(part: slice) -> Tensor:
            old = similarity(query[part], candidate)
            return old if new is None else lift(old, Candidates(new.index[part], new.score[part]))

        return chunk_rows

    forth, back = reranking or (None, None)
    return rows(text, image, forth), rows(image, text, back), torch.arange(len(image), device=image.device)
