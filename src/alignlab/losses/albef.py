"""ALBEF's losses on features and on matching logits (arXiv:2107.07651, sec. 3.2 and 3.3).

Legend: B batch of this process, R ranks, K queue, D joint embedding. `same`: True = the same picture or caption.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from alignlab.types.pairs import PairIds


class Keys(NamedTuple):
    """Teacher features that one modality is compared with."""

    batch: Tensor  # (R * B, D), all ranks' batches; (B, D) as the reference has it
    queue: Tensor  # (K, D)


class Sameness(NamedTuple):
    """Which keys are positives besides the own one."""

    batch: Tensor  # (B, R * B) bool, own keys True
    queue: Tensor  # (B, K) bool


class ContrastiveTerms(NamedTuple):
    """Loss and the student's similarities within the batch, which hard negatives are drawn by."""

    loss: Tensor  # ()
    image_to_text: Tensor  # (B, B), divided by the temperature
    text_to_image: Tensor  # (B, B), divided by the temperature


def sameness(own: PairIds, batch: PairIds, queue: PairIds) -> Sameness:
    """Pairs that share a picture or a caption: B rows of this process against R * B of all ranks and K of the queue."""

    def equal(other: PairIds) -> Tensor:
        return (own.image[:, None] == other.image[None]) | (own.text[:, None] == other.text[None])

    return Sameness(equal(batch), equal(queue))


def soft_contrastive(
    features: Tensor,
    keys: Keys,
    teacher: Tensor,
    same: Sameness | None,
    temperature: Tensor,
    alpha: float,
    first: int = 0,
) -> tuple[Tensor, Tensor]:
    """One direction of ITC: the student's features against teacher keys of the other modality, batch and queue.

    L = mean_b [ logsumexp_k s_bk - <(1 - a) y_b + a softmax(t_b), s_b> ], s = features . keys / temperature,
    t = teacher . keys / temperature, y = the own key, or uniform over all keys of equal id where `same` is given.
    Two products and two logsumexp stand for the reference's concatenation and one-hot matrix.
    features, teacher (B, D) -> loss (), similarities within this process's batch (B, B), whose keys begin at row
    `first`.
    """
    # salesforce/ALBEF b9727e4 models/model_pretrain.py:113-128, with one-hot targets written out.
    sim_batch, sim_queue = (features @ k.T / temperature for k in keys)
    total = torch.logaddexp(sim_batch.logsumexp(1), sim_queue.logsumexp(1))
    if same is None:
        hard = sim_batch.diagonal(first)
    else:
        count = same.batch.sum(1) + same.queue.sum(1)
        # torch.where, not a product: it keeps no float copy of the (B, K) mask.
        positives = torch.where(same.batch, sim_batch, 0.0).sum(1) + torch.where(same.queue, sim_queue, 0.0).sum(1)
        hard = positives / count
    if alpha > 0.0:
        with torch.no_grad():
            t_batch, t_queue = (teacher @ k.T / temperature for k in keys)
            t_total = torch.logaddexp(t_batch.logsumexp(1), t_queue.logsumexp(1))[:, None]
            t_batch, t_queue = (t_batch - t_total).exp_(), (t_queue - t_total).exp_()
        soft = torch.linalg.vecdot(t_batch, sim_batch) + torch.linalg.vecdot(t_queue, sim_queue)
        hard = (1.0 - alpha) * hard + alpha * soft
    return (total - hard).mean(), sim_batch[:, first : first + len(features)]


def image_text_contrastive(
    image: Tensor,
    text: Tensor,
    image_keys: Keys,
    text_keys: Keys,
    same: Sameness | None,
    temperature: Tensor,
    alpha: float,
    first: int = 0,
) -> ContrastiveTerms:
    """ITC with momentum distillation (arXiv:2107.07651, eq. 1, 2 and 6), in float32.

    image, text (B, D) are the student's. Keys are the teacher's; their rows first .. first + B belong to this process
    and double as the soft targets' queries. With all ranks' keys, R ranks give the loss of one rank with the joint
    batch.
    """
    own = slice(first, first + len(image))
    with torch.autocast(image.device.type, enabled=False):
        image, text, temperature = image.float(), text.float(), temperature.float()
        image_keys, text_keys = (Keys(*(x.float() for x in keys)) for keys in (image_keys, text_keys))  # bf16-true
        teacher_image, teacher_text = image_keys.batch[own], text_keys.batch[own]
        image_loss, image_to_text = soft_contrastive(image, text_keys, teacher_image, same, temperature, alpha, first)
        text_loss, text_to_image = soft_contrastive(text, image_keys, teacher_text, same, temperature, alpha, first)
    return ContrastiveTerms((image_loss + text_loss) / 2, image_to_text, text_to_image)


class HardNegatives(NamedTuple):
    """For each text a wrong picture, for each picture a wrong text."""

    image: Tensor  # (B,) int64, for the b-th text
    text: Tensor  # (B,) int64, for the b-th picture
    valid: Tensor  # (B,) bool, False where every other pair of the batch has the same id


@torch.no_grad()
def hard_negatives(
    image_to_text: Tensor, text_to_image: Tensor, same: Tensor, draw: Tensor | None = None
) -> HardNegatives:
    """Draw in-batch negatives in proportion to softmax(similarity) over pairs of another id (arXiv:2107.07651, sec.
    3.2).

    All rows at once by the Gumbel maximum, in log space: it needs no wait for the device and no sum of probabilities,
    which underflows in the reference (its `multinomial` then fails). similarities, same (B, B).
    draw (2, B, P), exponentially distributed, may be given; a row's negatives then come from its own group of P pairs,
    P a divisor of B.
    """
    # salesforce/ALBEF b9727e4 models/model_pretrain.py:141-164: a loop with one `multinomial(...).item()` a row, hence
    # one wait for the device each.
    if draw is None:
        draw = torch.empty(2, *image_to_text.shape, device=same.device).exponential_()
    size = draw.shape[2]
    same = _own_groups(same, size)
    start = torch.arange(0, len(image_to_text), size, device=same.device).repeat_interleave(size)
    image, text = (
        (_own_groups(similarity.float(), size) - chance.log()).masked_fill(same, -torch.inf).argmax(1) + start
        for similarity, chance in zip((text_to_image, image_to_text), draw, strict=True)
    )
    return HardNegatives(image, text, ~same.all(1))


def partners(image_id: Tensor, text_id: Tensor, size: int, *, ignore_ids: bool = False) -> Tensor:
    """(B,) which pairs have a hard negative at all: another id in their own group of `size` pairs. What
    `HardNegatives.valid` will be.
    """
    own = PairIds(image_id, text_id)
    same = (
        torch.eye(len(image_id), dtype=torch.bool, device=image_id.device)
        if ignore_ids
        else sameness(own, own, own).batch
    )
    return ~_own_groups(same, size).all(1)


def _own_groups(matrix: Tensor, size: int) -> Tensor:
    """(B, B) -> (B, P): of each row the columns of its own group of P."""
    groups = len(matrix) // size
    return matrix.reshape(groups, size, groups, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1).reshape(-1, size)


class MatchingTerms(NamedTuple):
    """ITM loss and how often the decision is right."""

    loss: Tensor  # ()
    accuracy: Tensor  # ()


def image_text_matching(
    logits: Tensor, valid: Tensor, total: Tensor | None = None, foils: Tensor | None = None
) -> MatchingTerms:
    """ITM (arXiv:2107.07651, eq. 4) over rows [B positives, B negative texts, B negative pictures], in float32.

    logits (3B, 2), class 1 = match; valid (B,) tells which negatives exist. total: what to divide by instead of the
    number of rows that exist, such as its mean over ranks. foils (N,): which of N more false rows exist, which come
    after the negative texts; logits are (3B + N, 2) then.
    """
    # salesforce/ALBEF b9727e4 models/model_pretrain.py:180-185, where all negatives exist.
    batch = len(valid)
    label = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    label[:batch] = 1
    more = () if foils is None else (foils,)
    weight = torch.cat([torch.ones_like(valid), valid, *more, valid]).float()
    loss = F.cross_entropy(logits.float(), label, reduction="none")
    right = (logits.argmax(1) == label).float()
    total = weight.sum() if total is None else total
    return MatchingTerms((loss * weight).sum() / total, (right * weight).sum() / total)
