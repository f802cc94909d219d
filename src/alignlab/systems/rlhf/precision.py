"""In which precision an on-policy run computes.

The policy's passes, those of the update and those that give the old log-probabilities, run as the trainer has it (autocast, or weights in bfloat16):
they are the same passes, so the ratio starts at 1. Everything around them leaves it: the sampler reads the weights as they lie, in their own dtype, rewards
are scored in that of their own weights, and scores, advantages and statistics are float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

REFUSED = {
    "16-mixed": "float16's losses need a scaler, past which an update takes its steps: take bf16-mixed, or 32-true",
    "16-true": "steps as small as those of an update are lost in float16 weights, and their losses overflow: take bf16-true, bf16-mixed or 32-true",
}


def check_precision(precision: str) -> None:
    """Raises ValueError for a precision of the trainer that can't work."""
    if precision in REFUSED:
        raise ValueError(f"trainer.precision={precision} can't be had with ppo and grpo: {REFUSED[precision]}")


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
