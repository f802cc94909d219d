"""LoRA on the towers of a net with pictures (arXiv:2106.09685): a matrix W becomes W + (alpha / rank) B A, of which A
and B alone learn.

The sum is made where the weight is asked for, so that whatever uses it (blocks that compute one token only) sees it.
Legend: O outputs, I inputs, R rank.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

TARGETS = ("qkv", "proj", "fc1", "fc2")


class LowRank(nn.Module):
    """What is added to a weight (O, I); nothing at the start."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, weight.shape[1], dtype=weight.dtype, device=weight.device))  # A
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, dtype=weight.dtype, device=weight.device))  # B
        nn.init.normal_(self.down, std=rank**-0.5)
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        return torch.addmm(weight, self.up, self.down, alpha=self.scale)


def add_low_rank(towers: Sequence[nn.Module], rank: int, alpha: float, targets: Sequence[str] = TARGETS) -> int:
    """Freezes towers and puts a trainable addition on those of their linear layers that are called so; gives how many.

    Raises ValueError for a rank below 1 and for names that no layer has.
    """
    if rank < 1:
        raise ValueError(f"lora_rank is {rank}; it must be at least 1, or null")
    met = set()
    for tower in towers:
        tower.requires_grad_(False)
        for name, layer in list(tower.named_modules()):
            leaf = name.rpartition(".")[2]
            if isinstance(layer, nn.Linear) and leaf in targets:
                parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank, alpha), unsafe=True)
                layer.parametrizations.weight.original.requires_grad_(False)
                met.add(leaf)
    if lacking := [name for name in targets if name not in met]:
        raise ValueError(f"lora_targets: no linear layer of the towers is called {lacking[0]}; there are {TARGETS}")
    return sum(parametrize.is_parametrized(layer) for tower in towers for layer in tower.modules())


def merge_low_rank(net: nn.Module) -> nn.Module:
    """The net with all additions in its weights, for good; the same net where there are none."""
    for layer in net.modules():
        if parametrize.is_parametrized(layer, "weight") and isinstance(layer.parametrizations.weight[0], LowRank):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return net
