"""Whether a model tells a true caption from one that is false by one fact (Winoground, arXiv:2204.03162; ARO,
arXiv:2210.01936).

Legend: N rows, P pictures of a row (1 or 2), T tokens, W width, D joint embedding, S image tokens.
"""

from collections.abc import Callable, Iterable
from itertools import islice

import torch
from torch import Tensor, nn

from alignlab.evaluation.encoding import gather_rows
from alignlab.types.pairs import FoilBatch, ImageEncoding, TextEncoding


def winoground(scores: Tensor) -> dict[str, float]:
    """Shares of rows that are told right: scores (N, P, 2) of pictures with captions, of which caption i is true of
    picture i.

    `caption_accuracy` is of picture 0 alone: its own caption scores above the foil; chance is 1/2, and a tie counts as
    that. With two pictures the scores of Winoground too (eq. 1 to 3), where a tie is wrong: `text_score`, both
    pictures have the right caption (chance 1/4); `image_score`, both captions the right picture (1/4); `group_score`,
    all of it (1/6).

    NaN counts as the lowest score.

    Raises:
        ValueError: there is no row, or the shape is another one.
    """
    if scores.ndim != 3 or scores.shape[1] not in (1, 2) or scores.shape[2] != 2 or not len(scores):
        raise ValueError(f"scores have the shape {tuple(scores.shape)}; it must be (rows, 1 or 2 pictures, 2 captions)")
    scores = torch.where(scores.isnan(), -torch.inf, scores.float())
    true, foil = scores[:, 0, 0], scores[:, 0, 1]
    per_item = {"caption_accuracy": (true > foil).float() + 0.5 * (true == foil).float()}
    if scores.shape[1] == 2:
        text = (true > foil) & (scores[:, 1, 1] > scores[:, 1, 0])
        image = (true > scores[:, 1, 0]) & (scores[:, 1, 1] > foil)
        per_item |= {"text_score": text.float(), "image_score": image.float(), "group_score": (text & image).float()}
    means = torch.stack(list(per_item.values())).mean(1).tolist()  # the one wait for the device
    return dict(zip(per_item, means, strict=True))


@torch.no_grad()
def foil_scores(
    system: nn.Module,
    batches: Iterable[FoilBatch],
    *,
    transfer: Callable[[FoilBatch], FoilBatch] = lambda batch: batch,
    limit_batches: int | None = None,
) -> dict[str, Tensor]:
    """Scores (N, P, 2) of every row's pictures with its captions, by name of what scores: "similarity", the cosine of
    the features, and "matching", the matching head's log-odds, where the net has one.

    `system` has encode_image, encode_text and a net and is in eval mode; `transfer` moves a batch. Every rank reads
    rows of its own and gets those of all.
    """
    collected: dict[str, list[Tensor]] = {"similarity": []}
    if hasattr(system.net, "match"):
        collected["matching"] = []
    for batch in islice(batches, limit_batches):
        batch = transfer(batch)
        image = system.encode_image(batch.image.flatten(0, 1))
        text = system.encode_text(batch.ids.flatten(0, 1), batch.mask.flatten(0, 1))
        rows = len(batch.ids)
        features = (x.features.float().unflatten(0, (rows, -1)) for x in (image, text))
        collected["similarity"].append(torch.einsum("npd,ncd->npc", *features))
        if "matching" in collected:
            collected["matching"].append(_match(system.net, image, text, batch.mask))
    device = next(system.parameters()).device
    empty = torch.zeros(0, 0, 2, device=device)
    return {name: gather_rows(torch.cat(parts) if parts else empty) for name, parts in collected.items()}


def _match(net: nn.Module, image: ImageEncoding, text: TextEncoding, mask: Tensor) -> Tensor:
    """Log-odds (B, P, 2): every picture once with each of its row's two captions."""
    rows, pictures = len(mask), len(image.features) // len(mask)
    # First all pictures with their rows' first captions, then with the second: groups in which each looks at its own.
    tokens, masks = (
        x.transpose(0, 1).repeat_interleave(pictures, dim=1).flatten(0, 1)
        for x in (text.tokens.unflatten(0, (rows, 2)), mask)
    )
    logits = net.match(net.image_states(image.tokens), tokens, masks).float()
    return (logits[:, 1] - logits[:, 0]).unflatten(0, (2, rows, pictures)).permute(1, 2, 0)
