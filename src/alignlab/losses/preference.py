"""Losses on pairs of texts: Bradley-Terry for reward models, and the DPO family.

Legend: P pairs. A share is the part of the raters that prefers the first text of a pair; 1 where nobody counted.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

DpoKind = Literal["dpo", "ipo", "cdpo", "robust"]


def bradley_terry(
    first: Tensor, second: Tensor, share: Tensor, *, margin: Tensor | None = None, centering: float = 0.0
) -> Tensor:
    """Mean over pairs of the cross-entropy between the raters' shares and sigma(r_1 - r_2 - m), plus c (r_1 + r_2)^2.

    -s log sigma(d) - (1 - s) log sigma(-d) with d = r_1 - r_2 - m; with s = 1 the loss of arXiv:2203.02155, eq. 1,
    with the margin of arXiv:2307.09288, eq. 2, and the centering of arXiv:2312.09244. All (P,).
    """
    # One preferred text, with and without a margin: huggingface/trl v1.12.0 trl/trainer/reward_trainer.py:755-757.
    difference = first - second if margin is None else first - second - margin
    loss = F.binary_cross_entropy_with_logits(difference, share)
    return loss + centering * (first + second).square().mean() if centering else loss


class DpoTerms(NamedTuple):
    """What DPO logs beside its loss."""

    loss: Tensor  # (P,)
    first_reward: Tensor  # (P,) beta (log pi - log ref), without gradient
    second_reward: Tensor  # (P,)


def dpo(
    first: Tensor,
    second: Tensor,
    reference_first: Tensor,
    reference_second: Tensor,
    *,
    beta: float = 0.1,
    kind: DpoKind = "dpo",
    label_smoothing: float = 0.0,
    share: Tensor | None = None,
    first_length: Tensor | None = None,
    second_length: Tensor | None = None,
) -> DpoTerms:
    """Direct preference optimisation from summed log-probabilities of the responses (P,), in nats.

    With h = (log pi_1 - log ref_1) - (log pi_2 - log ref_2), smoothing e and share s:
    dpo, cdpo: -t log sigma(beta h) - (1 - t) log sigma(-beta h), t = s (1 - e) + (1 - s) e
        (arXiv:2305.18290, eq. 7; cDPO: e > 0)
    robust:    [-(1 - e) log sigma(beta h) + e log sigma(-beta h)] / (1 - 2 e)               (arXiv:2403.00409, eq. 12)
    ipo:       (h' - 1 / (2 beta))^2, h' from the means over tokens                          (arXiv:2310.12036, eq. 17)
    Lengths (P,) are needed for ipo alone. Shares other than 1 have a meaning for dpo and cdpo alone.
    """
    policy, reference = first - reference_first, second - reference_second
    if kind == "ipo":
        if first_length is None or second_length is None:
            raise ValueError("ipo needs the lengths of the responses")
        # Means over tokens, as IPO's authors meant it: huggingface/trl v1.12.0 trl/trainer/dpo_trainer.py:1470-1481.
        loss = (policy / first_length - reference / second_length - 1 / (2 * beta)).square()
    else:
        # huggingface/trl v1.12.0 trl/trainer/dpo_trainer.py:1464-1465, and :1505-1508 for robust.
        logits = beta * (policy - reference)
        if kind == "robust":
            e = label_smoothing
            loss = (e * F.logsigmoid(-logits) - (1 - e) * F.logsigmoid(logits)) / (1 - 2 * e)
        else:
            share = torch.ones_like(logits) if share is None else share
            target = share * (1 - label_smoothing) + (1 - share) * label_smoothing
            loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return DpoTerms(loss, beta * policy.detach(), beta * reference.detach())
