"""Re-rank the best candidates of contrastive retrieval by image-text matching (arXiv:2107.07651, sec. 4, retrieval).

Legend: I pictures, N texts, P pairs, T tokens, W width, k candidates of a query.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from alignlab.distributed import collectives
from alignlab.evaluation.encoding import EncodedSet, gather_rows
from alignlab.evaluation.retrieval import Candidates, Reranking, similarity

MatchScore = Literal["log_odds", "match_logit"]


def nearest(query: Tensor, candidate: Tensor, k: int, *, chunk: int = 1024) -> Candidates:
    """The k most similar candidates of every query, best first, `chunk` queries at a time: (Q, D), (C, D) -> (Q, k)."""
    best = [similarity(part, candidate).topk(min(k, len(candidate)), dim=1) for part in query.split(chunk)]
    return Candidates(torch.cat([b.indices for b in best]), torch.cat([b.values for b in best]))


def rerank(
    net: nn.Module,
    encoded: EncodedSet,
    *,
    top_k: int,
    score: MatchScore = "log_odds",
    similarity_weight: float = 0.0,
    texts_per_pass: int = 256,
) -> Reranking:
    """Score the top_k pictures of every text and the top_k texts of every picture with the matching head.

    The union of both sets of pairs is scored once, picture by picture: its keys and values for the fusion layers are
    projected once and shared by its texts. Score: logit[1] - logit[0] ("log_odds", what the probability of a match is
    made of), or logit[1] alone ("match_logit", the reference). `similarity_weight` times the cosine similarity
    is added: 1 as LAVIS does; 1 / temperature gives the logarithm of both models' product. Every rank scores
    the pictures whose tokens it keeps. `net` has image_states and match and is in eval mode.
    Raises ValueError if top_k < 1 or the set was encoded without tokens.
    """
    if top_k < 1:
        raise ValueError(f"re-ranking needs at least 1 candidate a query, got top_k={top_k}")
    if encoded.text_tokens is None:
        raise ValueError("re-ranking needs the tokens of texts and pictures: encode the set with keep_tokens=True")
    num_texts, num_images = len(encoded.text_features), len(encoded.image_features)
    forth = nearest(encoded.text_features, encoded.image_features, top_k)
    back = nearest(encoded.image_features, encoded.text_features, top_k)
    texts = torch.arange(num_texts, device=forth.index.device)
    images = torch.arange(num_images, device=back.index.device)
    forth_key = forth.index * num_texts + texts[:, None]
    back_key = images[:, None] * num_texts + back.index
    key, place = torch.cat([forth_key.flatten(), back_key.flatten()]).unique(return_inverse=True)  # sorted by picture
    image, text = key // num_texts, key % num_texts
    pair_score = score_pairs(net, encoded, image, text, score=score, texts_per_pass=texts_per_pass)

    def candidates(before: Candidates, places: Tensor) -> Candidates:
        new = pair_score[places].view_as(before.score)
        return Candidates(before.index, new + similarity_weight * before.score)

    forth_place, back_place = place.split([forth_key.numel(), back_key.numel()])
    return Reranking(candidates(forth, forth_place), candidates(back, back_place))


@torch.no_grad()
def score_pairs(
    net: nn.Module,
    encoded: EncodedSet,
    image: Tensor,
    text: Tensor,
    *,
    score: MatchScore = "log_odds",
    texts_per_pass: int = 256,
) -> Tensor:
    """Matching scores of pairs that are sorted by picture: image (P,), text (P,) -> (P,) float, the same on every
    rank.

    Within a picture short texts come first, so that each pass of at most `texts_per_pass` texts is cropped to its own
    longest.
    """
    owner = encoded.image_rank[image]
    own = (owner == collectives.rank()).nonzero().flatten()
    local = _score_own(net, encoded, image[own], text[own], score, texts_per_pass)
    if collectives.world_size() == 1:
        return local
    scores = torch.empty(len(image), dtype=torch.float32, device=local.device)
    scores[owner.argsort(stable=True)] = gather_rows(local)
    return scores


def _score_own(
    net: nn.Module, encoded: EncodedSet, image: Tensor, text: Tensor, score: MatchScore, texts_per_pass: int
) -> Tensor:
    scores = torch.empty(len(image), dtype=torch.float32, device=encoded.text_features.device)
    if len(image) == 0:
        return scores
    device, mask = encoded.text_features.device, encoded.text_mask
    length = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1).clamp(min=1)[text]
    order = (image * (mask.shape[1] + 1) + length).argsort(stable=True)
    pictures, counts = image.unique_consecutive(return_counts=True)
    mine = (encoded.image_rank == collectives.rank()).nonzero().flatten()
    slots = torch.searchsorted(mine, pictures)
    # Everything the host needs to steer by, in one go: the loop below never waits for the device.
    slots, counts, lengths = slots.tolist(), counts.tolist(), length[order].tolist()
    text = text[order]
    tokens_of = text.to(encoded.text_tokens.device)

    start, sorted_scores = 0, []
    for slot, count in zip(slots, counts, strict=True):
        states = net.image_states(encoded.image_tokens[slot : slot + 1].to(device))
        for first in range(start, start + count, texts_per_pass):
            last = min(first + texts_per_pass, start + count)
            tokens = encoded.text_tokens[tokens_of[first:last], : lengths[last - 1]].to(device)
            logits = net.match(states, tokens, mask[text[first:last], : lengths[last - 1]]).float()
            sorted_scores.append(logits[:, 1] if score == "match_logit" else logits[:, 1] - logits[:, 0])
        start += count
    scores[order] = torch.cat(sorted_scores)
    return scores
