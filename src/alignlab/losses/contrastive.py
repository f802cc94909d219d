"""Contrastive losses of two-tower models over the joint batch of all ranks: InfoNCE and SigLIP's pairwise sigmoid.

Inputs are unit vectors; everything is computed in fp32 at least, whatever the autocast. Every loss is one rank's
share: its mean over ranks is the joint loss, so DDP's averaged gradient is the joint gradient. Legend: B pairs per
rank, R ranks, G = R*B, D width, C columns of a chunk.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from alignlab.distributed.collectives import all_gather, all_gather_with_grad, rank, world_size
from alignlab.types.pairs import PairIds

Duplicates = Literal["positives", "masked", "negatives"]


class InfoNce(nn.Module):
    """`info_nce` with its settings."""

    def __init__(
        self, *, local_loss: bool = True, gather_with_grad: bool = True, duplicates: Duplicates = "positives"
    ) -> None:
        super().__init__()
        if not (local_loss or gather_with_grad):
            raise ValueError(
                "local_loss=false needs gather_with_grad=true, else gradients shrink with the number of ranks"
            )
        self.local_loss, self.gather_with_grad = local_loss, gather_with_grad
        self.duplicates = _checked(duplicates)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        bias: Tensor | None = None,
        ids: PairIds | None = None,
        gather: bool = True,
    ) -> Tensor:
        """(B, D), (B, D), (1,) -> scalar.

        A bias cancels in the softmax and is refused; gather=False keeps to this rank's pairs.
        """
        if bias is not None:
            raise ValueError("InfoNce cannot learn a bias: set logit_bias=null or take model/loss=siglip")
        return info_nce(
            image,
            text,
            scale,
            local_loss=self.local_loss,
            gather_with_grad=self.gather_with_grad,
            ids=None if self.duplicates == "negatives" else ids,
            mask_duplicates=self.duplicates == "masked",
            gather=gather,
        )


class SigLip(nn.Module):
    """`siglip` with its settings."""

    def __init__(self, *, chunk_size: int = 1024, duplicates: Duplicates = "positives") -> None:
        super().__init__()
        if chunk_size < 1:
            raise ValueError(f"chunk_size={chunk_size} must be at least 1")
        self.chunk_size = chunk_size
        self.duplicates = _checked(duplicates)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        bias: Tensor | None = None,
        ids: PairIds | None = None,
        gather: bool = True,
    ) -> Tensor:
        """(B, D), (B, D), (1,), (1,) -> scalar. Without a bias it is 0; gather=False keeps to this rank's pairs."""
        return siglip(
            image,
            text,
            scale,
            torch.zeros_like(scale) if bias is None else bias,
            ids=None if self.duplicates == "negatives" else ids,
            mask_duplicates=self.duplicates == "masked",
            chunk_size=self.chunk_size,
            gather=gather,
        )


def info_nce(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    *,
    local_loss: bool = True,
    gather_with_grad: bool = True,
    ids: PairIds | None = None,
    mask_duplicates: bool = False,
    gather: bool = True,
) -> Tensor:
    """Symmetric softmax cross-entropy between each picture and all texts, and each text and all pictures.

    L = 1/2B sum_i [lse_j(s x_i.y_j) - s x_i.y_i] + the same for texts (arXiv:2103.00020, fig. 3; arXiv:1807.03748, eq.
    4).
    local_loss: this rank's B rows against all G columns, B x G logits; False computes all G x G on every rank.
    gather_with_grad: other ranks' vectors carry gradient, which makes it exact; False treats them as constants and
    saves the exchange in the backward pass.
    ids: pairs with an equal picture or caption id are positives too, weighted equally (not in the paper), or left out
    of the sum with mask_duplicates. image, text: (B, D); scale: (1,). Raises ValueError if the joint batch is a single
    pair.
    """
    with _no_autocast(image):
        image, text, scale = _wide(image), _wide(text), _wide(scale)
        gather = gather and world_size() > 1
        _check_size(len(image) * (world_size() if gather else 1))
        start, columns, every = 0, (image, text), ids
        if gather:
            collect = all_gather_with_grad if gather_with_grad else _gather_keeping_own
            columns = collect(image), collect(text)
            every = None if ids is None else PairIds(all_gather(ids.image), all_gather(ids.text))
            start = rank() * len(image)
            if not local_loss:
                image, text, ids, start = *columns, every, 0
        same = None if ids is None else _sameness(ids, every)
        image_logits = scale * image @ columns[1].T
        text_logits = image_logits.T if len(image) == len(columns[0]) else scale * text @ columns[0].T
        # mlfoundations/open_clip v3.3.0 src/open_clip/loss.py:104-155; its labels there are `start` here.
        return (
            _cross_entropy(image_logits, start, same, mask_duplicates)
            + _cross_entropy(text_logits, start, same, mask_duplicates)
        ) / 2


def siglip(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    ids: PairIds | None = None,
    mask_duplicates: bool = False,
    chunk_size: int = 1024,
    gather: bool = True,
) -> Tensor:
    """Sigmoid loss over all pairs of the joint batch.

    L = -1/B sum_i sum_j log sigmoid(z_ij (s x_i.y_j + b)), z = 1 for pairs that belong together, else -1
    (arXiv:2303.15343, sec. 3.2). Texts of all ranks pass in chunks of C columns; the gradient is computed in the same
    pass, so that no more than B x C logits exist at a time, in either direction. ids and mask_duplicates as for
    `info_nce`. Raises ValueError for a joint batch of one pair.
    """
    with _no_autocast(image):
        image, text, scale, bias = _wide(image), _wide(text), _wide(scale), _wide(bias)
        gather = gather and world_size() > 1
        _check_size(len(image) * (world_size() if gather else 1))
        start, every = 0, ids
        if gather:
            text, start = all_gather_with_grad(text), rank() * len(image)
            every = None if ids is None else PairIds(all_gather(ids.image), all_gather(ids.text))
        return _SigLip.apply(image, text, scale, bias, ids, every, start, mask_duplicates, chunk_size)


class _SigLip(torch.autograd.Function):
    """Loss and gradients in one pass over chunks of texts; backward only multiplies."""

    @staticmethod
    def forward(ctx, image, text, scale, bias, ids, every, start, mask_duplicates, chunk_size) -> Tensor:
        batch = len(image)
        loss = image.new_zeros(())
        image_gradient, text_gradient = torch.zeros_like(image), torch.empty_like(text)
        scale_gradient, bias_gradient = torch.zeros_like(scale), torch.zeros_like(bias)
        rows = torch.arange(start, start + batch, device=image.device).unsqueeze(1)
        # -log sigmoid(label * logit) / rows, as in mlfoundations/open_clip v3.3.0 src/open_clip/loss.py:370-379; chunks
        # keep the logits at B x C, where the whole would be B x G.
        for first in range(0, len(text), chunk_size):
            chunk = slice(first, first + chunk_size)
            diagonal = rows == torch.arange(first, min(first + chunk_size, len(text)), device=image.device)
            same = diagonal if ids is None else _sameness(ids, PairIds(every.image[chunk], every.text[chunk]))
            positive = diagonal if mask_duplicates else same
            cosine = image @ text[chunk].T
            sign = positive.to(image.dtype).mul_(2).sub_(1)
            signed = torch.addcmul(bias, cosine, scale).mul_(sign)
            terms = nn.functional.logsigmoid(signed)
            slope = torch.sigmoid(-signed).mul_(sign).div_(-batch)  # d loss / d logit
            if mask_duplicates:
                counted = diagonal | ~same
                terms, slope = terms * counted, slope * counted
            loss -= terms.sum() / batch
            image_gradient.addmm_(slope, text[chunk])
            torch.mm(slope.T, image, out=text_gradient[chunk])
            scale_gradient += (slope * cosine).sum()
            bias_gradient += slope.sum()
        ctx.save_for_backward(image_gradient * scale, text_gradient * scale, scale_gradient, bias_gradient)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        return (*(g * gradient for g in ctx.saved_tensors), None, None, None, None, None)


def _cross_entropy(logits: Tensor, start: int, same: Tensor | None, mask_duplicates: bool) -> Tensor:
    # logits (rows, G), the partner of row i is column start + i; logsumexp keeps no second matrix for the backward
    # pass
    own = logits.diagonal(start)
    if same is None:
        return (torch.logsumexp(logits, 1) - own).mean()
    if not mask_duplicates:
        weight = same.to(logits.dtype)
        return (torch.logsumexp(logits, 1) - (logits * weight).sum(1) / weight.sum(1)).mean()
    rest = same.clone()
    rest.diagonal(start).fill_(False)
    return (torch.logsumexp(logits.masked_fill(rest, -torch.inf), 1) - own).mean()


def _sameness(rows: PairIds, columns: PairIds) -> Tensor:
    return (rows.image.unsqueeze(1) == columns.image) | (rows.text.unsqueeze(1) == columns.text)


def _gather_keeping_own(x: Tensor) -> Tensor:
    parts = list(all_gather(x).split(len(x)))
    parts[rank()] = x  # with gradient
    return torch.cat(parts)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _no_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _check_size(pairs: int) -> None:
    if pairs < 2:
        raise ValueError(
            "batch_size=1 leaves a contrastive loss without a negative: use at least 2 pairs over all processes"
        )


def _checked(duplicates: Duplicates) -> Duplicates:
    if duplicates not in ("positives", "masked", "negatives"):
        raise ValueError(f"duplicates={duplicates} is none of positives, masked, negatives")
    return duplicates
