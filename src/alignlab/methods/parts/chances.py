"""The random choices of an ALBEF step, drawn for the joint batch so that they don't depend on how many processes share
it.

Legend: B pairs of this process, R processes, T tokens, P pairs among which a negative is drawn, W at least T.
"""

from typing import NamedTuple

import torch

from alignlab.distributed.collectives import rank, world_size
from alignlab.losses.albef import HardNegatives
from alignlab.losses.language import MaskedTokens, mask_tokens
from alignlab.types.pairs import PairBatch, Vocabulary


class Draws(NamedTuple):
    """Random numbers of one step."""

    hidden: torch.Tensor  # (B, W) uniform in [0, 1): which tokens are hidden, and how
    words: torch.Tensor  # (B, W) int64: the random tokens
    negatives: torch.Tensor  # (2, B, P) exponentially distributed


class Chances(NamedTuple):
    """The random choices of a step: made already, or the numbers to make them from; None draws from torch's global
    state.
    """

    masked: MaskedTokens | None = None
    negatives: HardNegatives | None = None
    draws: Draws | None = None


DRAW = Chances()


def joint_draws(
    seed: int,
    step: int,
    pairs: int,
    *,
    width: int,
    pool: int,
    vocab_size: int,
    device: torch.device,
    part: tuple[int, int] = (0, 1),
) -> Draws:
    """This process's rows of the numbers that belong to the joint batch of one step, of which this is the m-th of n
    parts (accumulated batches).

    Every process draws all R * B rows from (seed, step) and keeps its own: no state to save, and R processes with B
    pairs choose what one process with R * B pairs chooses, with `pool` = B there; n parts with B choose what one step
    with n * B chooses.
    """
    generator = torch.Generator(device).manual_seed((seed * 1_000_003 + step) % 2**63)
    first = (part[0] * world_size() + rank()) * pairs
    rows, own = pairs * world_size() * part[1], slice(first, first + pairs)
    hidden = torch.rand(rows, width, generator=generator, device=device, dtype=torch.float32)[own]
    words = torch.randint(vocab_size, (rows, width), generator=generator, device=device)[own]
    negatives = torch.empty(rows, 2, pool, device=device, dtype=torch.float32).exponential_(generator=generator)[own]
    return Draws(hidden, words, negatives.transpose(0, 1))


def masked_texts(batch: PairBatch, draws: Draws | None, words: Vocabulary, probability: float) -> MaskedTokens:
    """A batch's captions with this share of their tokens hidden; without draws, by torch's global state."""
    length = batch.ids.shape[1]
    return mask_tokens(
        batch.ids,
        batch.mask,
        mask_id=words.mask_id,
        cls_id=words.cls_id,
        vocab_size=words.size,
        probability=probability,
        draw=None if draws is None else draws.hidden[:, :length],
        words=None if draws is None else draws.words[:, :length],
    )
