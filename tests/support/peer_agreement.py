"""How far two implementations are apart, in values and gradients: said and bounded."""

from collections.abc import Sequence

import torch
from torch import Tensor


def agree(what: str, ours: Tensor, theirs: Tensor, inputs: Sequence[Tensor] = (), limit: float = 1e-6) -> None:
    """Prints and bounds the largest differences: of values, relative above 1; of gradients by `inputs`, relative to the largest entry."""
    value, gradient = _difference(ours, theirs, 1.0), 0.0
    if inputs:
        mine, other = (torch.autograd.grad(x.sum(), inputs, retain_graph=True) for x in (ours, theirs))
        assert all(x.abs().max() > 0 for x in other), f"{what}: nothing is learnt"
        gradient = max(_difference(a, b, 0.0) for a, b in zip(mine, other, strict=True))
    print(f"{what}: value {value:.1e}" + (f", gradient {gradient:.1e}" if inputs else ""))
    assert max(value, gradient) <= limit, f"{what}: {value:.3g}, {gradient:.3g}"


def _difference(a: Tensor, b: Tensor, least: float) -> float:
    assert a.shape == b.shape and b.isfinite().all()
    return ((a - b).abs().max() / b.abs().max().clamp_min(least)).item()
