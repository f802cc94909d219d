"""Memory arithmetic against tensors that exist, and by hand for sharding."""

from functools import partial

from alignlab.cost.memory import Counts, counts, training_memory
from alignlab.optim.adamw import adamw

import pytest
import torch
from torch import nn

SIZE = Counts(trainable=1000, frozen=200, buffer_bytes=64)


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-true", torch.bfloat16)])
def test_one_device_equals_what_is_allocated(precision, dtype):
    net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 8).requires_grad_(False)).to(dtype)
    optimizer = adamw(net, lr=0.1, total_steps=1)["optimizer"]
    net(torch.randn(4, 64, dtype=dtype)).sum().backward()
    optimizer.step()
    size = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)  # noqa: E731
    states = [t for state in optimizer.state.values() for t in state.values() if t.ndim > 0]
    found = (
        *(size(net.parameters()), size(p.grad for p in net.parameters() if p.grad is not None)),
        *(size(states), size(net.buffers())),
    )
    assert tuple(training_memory(counts(net), "none", precision=precision)) == found


def test_by_hand():
    memory = partial(training_memory, SIZE, ranks=4)
    assert memory("ddp") == training_memory(SIZE, "none") == (4800, 4000, 8000, 64)
    assert memory("fsdp") == (1200, 1000, 2000, 64)
    assert memory("deepspeed_1") == (4800, 4000, 3000, 64)  # moments and a copy of the weights, a quarter each
    assert memory("deepspeed_2") == (4800, 1000, 3000, 64)
    assert memory("deepspeed_3") == (1200, 1000, 3000, 64)
    assert memory("deepspeed_2", precision="bf16-mixed") == (2400, 500, 3000, 64)
    assert memory("deepspeed_3", offload_optimizer=True, offload_parameters=True) == (0, 0, 0, 64)
    assert memory("fsdp", optimizer_states=1).total == 1200 + 1000 + 1000 + 64


def test_parts_are_rounded_up():
    assert training_memory(Counts(10, 0, 0), "fsdp", ranks=4).parameters == 3 * 4


@pytest.mark.parametrize(
    "wrong", [{"strategy": "zero"}, {"strategy": "ddp", "ranks": 0}, {"strategy": "ddp", "precision": "8"}]
)
def test_what_has_no_arithmetic_is_refused(wrong):
    with pytest.raises(ValueError, match="no arithmetic"):
        training_memory(SIZE, **wrong)
