"""Encode a whole retrieval set once, every rank its share, ready for recall and re-ranking.

Legend: I pictures, L pictures of this rank, N texts, T tokens, D joint embedding, W width, S image tokens.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignlab.distributed import collectives
from alignlab.types.pairs import RetrievalBatch


class EncodedSet(NamedTuple):
    """Features of all pictures and texts, in the order of the data set; tokens only where they were asked for."""

    image_features: Tensor  # (I, D)
    text_features: Tensor  # (N, D)
    image_of_text: Tensor  # (N,) int64, non-decreasing
    image_index: Tensor  # (I,) int64, position in the data set (0..I-1 unless only some batches were read)
    image_rank: Tensor  # (I,) int64, the rank that keeps a picture's tokens
    image_tokens: Tensor | None  # (L, S, W) of this rank's pictures, in ascending order
    text_tokens: Tensor | None  # (N, T, W) of all texts
    text_ids: Tensor  # (N, T) int64, 0 after a text's end
    text_mask: Tensor  # (N, T) bool


def crop_padding(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Drop the last columns that no text uses: (N, T) -> (N, T') with T' <= T."""
    length = int(mask.any(0).nonzero().max()) + 1 if mask.any() else 1
    return ids[:, :length], mask[:, :length]


def _padded_cat(parts: list[Tensor]) -> Tensor:
    """Concatenate (n, t, ...) with different t; zeros or False fill up."""
    length = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, 0) * (part.ndim - 2) + (0, length - part.shape[1])) for part in parts])


def gather_rows(x: Tensor) -> Tensor:
    """Concatenate every rank's rows in rank order; ranks may differ in any size (zeros fill up),
    also by having none.
    """
    if collectives.world_size() == 1:
        return x
    sizes = collectives.all_gather(torch.tensor([x.shape], device=x.device))  # (R, ndim)
    rows, largest = sizes[:, 0].tolist(), sizes.amax(0).tolist()
    full = x.new_zeros(largest, dtype=torch.uint8 if x.dtype == torch.bool else x.dtype)
    full[tuple(slice(0, size) for size in x.shape)] = x
    blocks = collectives.all_gather(full).split(max(largest[0], 1))
    return torch.cat([block[:n] for block, n in zip(blocks, rows, strict=False)]).to(x.dtype)


@torch.no_grad()
def encode_retrieval_set(
    system: nn.Module,
    batches: Iterable[RetrievalBatch],
    *,
    transfer: Callable[[RetrievalBatch], RetrievalBatch] = lambda batch: batch,
    keep_tokens: bool = False,
    tokens_on_host: bool = False,
    limit_batches: int | None = None,
) -> EncodedSet:
    """Encode pictures and their captions once, padding cropped, and bring them into the order of the data set.

    `system` has encode_image and encode_text and is in eval mode; `transfer` moves and normalises a batch. Every rank
    reads
    its own share of the pictures: features and text tokens are gathered, image tokens stay where they were made.
    `tokens_on_host` keeps tokens in host memory (the COCO test set at 384 px: 8.9 GB of image tokens).
    Raises ValueError for an empty set, for a picture that is read twice and for a tower without tokens.
    """
    home = torch.device("cpu") if tokens_on_host else None
    columns: dict[str, list[Tensor]] = {}

    def keep(**values: Tensor) -> None:
        for name, value in values.items():
            columns.setdefault(name, []).append(value)

    for batch in islice(batches, limit_batches):
        ids, mask = crop_padding(batch.ids, batch.mask)  # before the transfer: no wait for the device
        batch = transfer(batch._replace(ids=ids, mask=mask))
        image, text = system.encode_image(batch.image), system.encode_text(batch.ids, batch.mask)
        keep(image=image.features, index=batch.image_index, text=text.features, of=batch.image_of_text)
        keep(ids=batch.ids, mask=batch.mask)
        if keep_tokens:
            if image.tokens is None or text.tokens is None:
                raise ValueError("this model gives no tokens to match pictures with texts: set rerank_top_k to 0")
            keep(image_tokens=image.tokens.to(home or image.tokens.device))
            keep(text_tokens=text.tokens.to(home or text.tokens.device))
    return _assemble(columns, keep_tokens, next(system.parameters()).device)


def _assemble(columns: dict[str, list[Tensor]], keep_tokens: bool, device: torch.device) -> EncodedSet:
    """Gather what every rank read and sort it by picture."""

    def whole(name: str, ndim: int, dtype: torch.dtype) -> Tensor:
        parts = columns.get(name, [torch.zeros((0,) * ndim, dtype=dtype, device=device)])
        local = _padded_cat(parts) if ndim > 1 else torch.cat(parts)
        return gather_rows(local.to(device)).to(parts[0].device)

    local_index = torch.cat(columns["index"]) if columns else torch.zeros(0, dtype=torch.int64, device=device)
    index, order = whole("index", 1, torch.int64).sort()
    if len(index) == 0:
        raise ValueError("the retrieval set is empty")
    if bool((index[1:] == index[:-1]).any()):
        raise ValueError("the retrieval set holds a picture twice: its loader must shard without padding")
    owner = gather_rows(torch.full_like(local_index, collectives.rank()))[order]
    belongs = whole("of", 1, torch.int64)
    # 0..I-1 also where only some batches were read
    picture = torch.searchsorted(index, belongs).clamp(max=len(index) - 1)
    if bool((index[picture] != belongs).any()):
        raise ValueError("a text belongs to a picture that is not in the set")
    image_of_text, text_order = picture.sort(stable=True)

    image_tokens = text_tokens = None
    if keep_tokens:
        text_tokens = whole("text_tokens", 3, torch.float32)
        text_tokens = text_tokens[text_order.to(text_tokens.device)]
        if columns:
            image_tokens = torch.cat(columns["image_tokens"])
            image_tokens = image_tokens[local_index.argsort().to(image_tokens.device)]
    return EncodedSet(
        image_features=whole("image", 2, torch.float32)[order],
        text_features=whole("text", 2, torch.float32)[text_order],
        image_of_text=image_of_text,
        image_index=index,
        image_rank=owner,
        image_tokens=image_tokens,
        text_tokens=text_tokens,
        text_ids=whole("ids", 2, torch.int64)[text_order],
        text_mask=whole("mask", 2, torch.bool)[text_order],
    )
