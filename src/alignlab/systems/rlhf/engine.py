"""What a strategy makes of an update's steps: forward and backward passes of micro-batches, clipping, the step.

A sharding strategy gathers parameters for a forward pass of the whole module, and its hooks count such passes. So each
micro-batch is one there; under the others all of an update is one, that of `training_step`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from alignlab.methods.rlhf.update import clip
from alignlab.strategies import zero_gradients

Result = TypeVar("Result")


class Engine:
    """One device, or DDP."""

    def __init__(self, module: Any) -> None:
        self.module, self.strategy = module, module.trainer.strategy
        self.optimizer = self.strategy.optimizers[0]

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Around forward and backward pass of a micro-batch: ranks exchange gradients after a step's last one."""
        model = self.strategy.model
        if isinstance(model, DistributedDataParallel) and not last:
            with model.no_sync():
                yield
        else:
            yield

    def forward(self, call: Callable[[], Result]) -> Result:
        """Does what uses the net's parameters."""
        return call()

    def clip(self, limit: float | None) -> Tensor:
        """See `update.clip`."""
        return clip([p for group in self.optimizer.param_groups for p in group["params"]], limit)

    def step(self) -> None:
        """The optimizer's step; gradients are gone afterwards."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def forget(self) -> None:
        """Drops the gradients without a step."""
        self.optimizer.zero_grad(set_to_none=True)


class Sharded(Engine):
    """FSDP2. Each micro-batch's gradients are cut up at once: kept whole, they would take the memory of all weights."""

    def forward(self, call: Callable[[], Result]) -> Result:
        return self.module.as_forward(call)


class Zero(Engine):
    """DeepSpeed's engine: it clips within its step, and averages gradients over ranks where a step's last micro-batch
    is named so beforehand.
    """

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        self.strategy.model.set_gradient_accumulation_boundary(last)
        yield

    def forward(self, call: Callable[[], Result]) -> Result:
        return self.strategy.as_forward(call)

    def clip(self, limit: float | None) -> Tensor:
        self.optimizer.clip_grad = limit or 0.0
        return zero_gradients.norm(self.optimizer)

    def step(self) -> None:
        self.strategy.model.step()

    def forget(self) -> None:
        zero_gradients.forget(self.optimizer)


def engine_of(module: Any) -> Engine:
    """The engine of a module that is being trained."""
    strategy = module.trainer.strategy
    kind = Sharded if isinstance(strategy, ModelParallelStrategy) else Engine
    return (Zero if isinstance(strategy, DeepSpeedStrategy) else kind)(module)


def cuts_parameters_up(strategy: Any) -> bool:
    """Whether a strategy leaves every rank a part of the parameters: FSDP2, ZeRO-3."""
    return isinstance(strategy, ModelParallelStrategy) or getattr(strategy, "zero_stage_3", False)


def check_offload(strategy: Any) -> None:
    """Raises ValueError for a strategy that keeps parameters on the host: what is gathered for rollouts would lie
    there too.
    """
    config = getattr(strategy, "config", None) or {}
    for key, on in {
        "cpu_offload": getattr(strategy, "cpu_offload", False),
        "offload_parameters": "offload_param" in config.get("zero_optimization", {}),
    }.items():
        if on:
            raise ValueError(f"{key}=true can't be had with ppo and grpo, whose rollouts need weights on the device")
