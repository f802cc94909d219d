"""Scalar heads on hidden states, and how the states of a text become one vector.

Legend: B rows, T tokens, W width.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Pool = Literal["last", "mean"]


class ScalarHead(nn.Linear):
    """Hidden states (..., W) -> numbers (...), in float32.

    init: "zero" for the value head of a shared trunk; "normal" N(0, 1 / sqrt(W + 1)) for a reward head
    (arXiv:2009.01325's code). The bias starts at 0.
    """

    def __init__(self, width: int, init: Literal["zero", "normal"] = "normal") -> None:
        super().__init__(width, 1)
        nn.init.zeros_(self.bias)
        if init == "zero":
            nn.init.zeros_(self.weight)
        else:
            nn.init.normal_(self.weight, std=(width + 1) ** -0.5)

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden.to(self.weight.dtype)).squeeze(-1).float()


def pooled(hidden: Tensor, mask: Tensor, pool: Pool = "last") -> Tensor:
    """(B, W): the state of each row's last token, or the mean over its tokens.

    hidden (B, T, W), mask (B, T), padded on either side.
    """
    if pool == "mean":
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1.0)
    return hidden[torch.arange(len(mask), device=mask.device), last_position(mask)]


def last_position(mask: Tensor) -> Tensor:
    """(B,) position of each row's last token, from the mask (B, T) and never from ids: padding may be the end-of-text
    token.
    """
    length = mask.shape[1]
    return (torch.arange(1, length + 1, device=mask.device) * mask).argmax(1)
