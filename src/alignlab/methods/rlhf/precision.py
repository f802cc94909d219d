"""In which precision an on-policy run computes.

The policy's passes, those of the update and those that give the old log-probabilities, run as the trainer has it
(autocast, or weights in bfloat16): they are the same passes, so the ratio starts at 1. Everything around them leaves
it: the sampler reads the weights as they lie, in their own dtype, rewards are scored in that of their own weights, and
scores, advantages and statistics are float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_tensors() -> Iterator[None]:
    """Within: new tensors are float32 unless told otherwise; under `bf16-true` the trainer says bfloat16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def own_precision(device: torch.device) -> Iterator[None]:
    """Within: the trainer's precision is left, every weight computes in its own dtype."""
    with float32_tensors(), torch.autocast(device.type, enabled=False):
        yield
