"""Settings of an update: how often, in which order and in what portions a rollout is used, and how far gradients may
go.
"""

import torch
from torch import Tensor

from alignlab.distributed.collectives import reduce_sum
from alignlab.distributed.shards import is_sharded, local_shards
from alignlab.methods.rlhf.objective import Statistics
from alignlab.methods.rlhf.rollout import request_seeds


class Update:
    """How a rollout is used up.

    Args:
        epochs: passes over the rollout.
        num_minibatches: optimizer steps in each pass.
        micro_batch_size: rows that go through the net at once, in the rollout's passes too; it changes no result.
        max_grad_norm: gradients of a minibatch are scaled down to it; None: never.
        target_kl: nats per token between the rollout's policy and the current one; when a minibatch exceeds it, the
            rest of the update is left out.
        critic_lr_ratio: learning rate of what only the critic trains, as a multiple of the policy's.
        critic_warmup: updates at the start in which only the critic learns.

    Raises:
        ValueError: a number below 1, or a limit that isn't positive.
    """

    def __init__(
        self,
        epochs: int = 4,
        num_minibatches: int = 1,
        micro_batch_size: int = 16,
        max_grad_norm: float | None = 1.0,
        target_kl: float | None = None,
        critic_lr_ratio: float = 1.0,
        critic_warmup: int = 0,
    ) -> None:
        for key, value in (
            ("epochs", epochs),
            ("num_minibatches", num_minibatches),
            ("micro_batch_size", micro_batch_size),
        ):
            if value < 1:
                raise ValueError(f"{key}={value} must be at least 1")
        for key, value in (("max_grad_norm", max_grad_norm), ("target_kl", target_kl)):
            if value is not None and value <= 0:
                raise ValueError(f"{key}={value} must be positive, or null")
        self.epochs, self.num_minibatches, self.micro_batch_size = epochs, num_minibatches, micro_batch_size
        self.max_grad_norm, self.target_kl = max_grad_norm, target_kl
        self.critic_lr_ratio, self.critic_warmup = critic_lr_ratio, critic_warmup

    def order(self, rows: int, seed: int, number: int) -> list[list[int]]:
        """Rows of each step of update `number`; every epoch has an order of its own, a function of run, update and
        epoch.

        Raises:
            ValueError: the minibatches don't divide the rows.
        """
        size, rest = divmod(rows, self.num_minibatches)
        if rest or not size:
            raise ValueError(f"num_minibatches={self.num_minibatches} doesn't divide the {rows} responses of a process")
        steps = []
        for epoch in range(self.epochs):
            generator = torch.Generator().manual_seed(request_seeds(seed, number, epoch, 1)[0])
            order = torch.randperm(rows, generator=generator).tolist()
            steps += [order[start : start + size] for start in range(0, rows, size)]
        return steps

    def went_too_far(self, statistics: Statistics) -> bool:
        """Whether a minibatch, over all ranks, is further from the rollout's policy than `target_kl`."""
        return self.target_kl is not None and reduce_sum(statistics.sums["approx_kl"]).item() > self.target_kl


@torch.no_grad()
def clip(parameters: list[torch.nn.Parameter], limit: float | None) -> Tensor:
    """Scale gradients down to a norm of `limit` (None: never); returns their norm before.

    Gradients that are cut up count as wholes, all ranks together.
    A norm that isn't finite must not reach the weights. On a CPU the caller sees it; elsewhere nobody looks before the
    step, so all gradients become 0.
    """
    whole = [p.grad for p in parameters if p.grad is not None]
    gradients = local_shards(whole)
    norm = torch.nn.utils.get_total_norm(gradients)
    if any(map(is_sharded, whole)):
        norm = reduce_sum(norm.square()).sqrt()
    if norm.device.type == "cpu":
        if limit is not None and limit < norm < torch.inf:  # short ones are left alone where looking costs no wait
            _shorten(gradients, norm, limit)
        return norm
    finite = norm.isfinite()
    zero_unless(finite, gradients)
    if limit is not None:
        _shorten(gradients, norm.where(finite, torch.ones_like(norm)), limit)
    return norm


def _shorten(gradients: list[Tensor], norm: Tensor, limit: float) -> None:
    """To a norm of `limit`, as `torch.nn.utils.clip_grads_with_norm_` does."""
    if gradients:
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))


def zero_unless(keep: Tensor, tensors: list[Tensor]) -> None:
    """Make tensors 0 where the one flag () is False, without asking the device for it, in few launches.

    Their bits are multiplied, as integers: infinity times 0 would be NaN.
    """
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    if tensors:
        torch._foreach_mul_([x.view(integers[x.element_size()]) for x in tensors], keep.to(torch.int16))


def metrics_of(done: list[Statistics]) -> dict[str, Tensor]:
    """Means over the minibatches, of sums over ranks."""
    if not done:
        return {}
    names = sorted(done[0].sums)
    table = torch.stack([torch.stack([s.sums[name].float() for name in names]) for s in done]).mean(0)
    return {f"ppo/{name}": value for name, value in zip(names, reduce_sum(table), strict=True)}
