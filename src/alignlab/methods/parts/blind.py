"""What losses are worth that have learnt nothing, and why that is where they mostly stay."""

import math
from typing import NamedTuple


class Blind(NamedTuple):
    """The loss of a model that tells nothing apart."""

    loss: float
    stands_for: str  # "ln(128)", for messages
    causes: tuple[str, str, str]  # the usual ones why a loss stays there


CONTRAST = (
    "the learning rate is too high and all features have become one (lower optim.lr, a longer warm-up), or far too low",
    "captions don't belong to their pictures, or read alike to the tokenizer (look at samples/ and at its warnings)",
    "a tower doesn't learn: it is frozen, or train/temperature stands at its limit",
)
MATCHING = (
    "the towers tell nothing apart yet, so fusion has nothing to look at: let it begin later (model.fuse_from_step)",
    "negatives that are true: captions which fit several pictures of a batch (they repeat, or are short)",
    "the learning rate is too high for the fusion, or model.itm_weight too small beside the other losses",
)


def contrast(candidates: int) -> Blind:
    """Of a softmax over so many candidates."""
    return Blind(math.log(candidates), f"ln({candidates})", CONTRAST)


def sigmoid_contrast(candidates: int) -> Blind:
    """Of SigLIP's sum over a row of so many pairs, one of them right, at the best constant probability 1/n."""
    rest = (candidates - 1) * math.log(candidates / (candidates - 1))
    return Blind(math.log(candidates) + rest, f"ln({candidates}) + {rest:.2f}", CONTRAST)


def matching(positives: int, negatives: int) -> Blind:
    """Of a decision that only knows how many pairs match."""
    share = negatives / (positives + negatives)
    loss = -share * math.log(share) - (1 - share) * math.log(1 - share)
    return Blind(loss, f"the share of negatives, {share:.1%}", MATCHING)
