"""Epochs and minibatches over one rollout: from advantages to optimizer steps.

Legend: B responses of this process.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from alignlab.distributed.collectives import reduce_sum, world_size
from alignlab.systems.diverged import Diverged
from alignlab.systems.rlhf.objective import Experience, Statistics, Totals
from alignlab.systems.rlhf.parts import Part, micro_batches, parts_of
from alignlab.systems.rlhf.rollout import Trajectory, request_seeds

if TYPE_CHECKING:
    from alignlab.systems.rlhf.on_policy import OnPolicySystem

RATIO_TOLERANCE = 1e-4  # of a run's first minibatch, in float32


class Update:
    """How a rollout is used up.

    Parameters
    ----------
    epochs, num_minibatches
        passes over the rollout, and optimizer steps in each pass.
    micro_batch_size
        rows that go through the net at once, in the rollout's passes too; it changes no result.
    max_grad_norm
        gradients of a minibatch are scaled down to it; None: never.
    target_kl
        nats per token between the rollout's policy and the current one; when a minibatch exceeds it, the rest of the update is left out.
    critic_lr_ratio
        learning rate of what only the critic trains, as a multiple of `optim.lr`.
    critic_warmup
        updates at the start in which only the critic learns.
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
                raise ValueError(f"model.update.{key}={value} must be at least 1")
        for key, value in (("max_grad_norm", max_grad_norm), ("target_kl", target_kl)):
            if value is not None and value <= 0:
                raise ValueError(f"model.update.{key}={value} must be positive, or null")
        self.epochs, self.num_minibatches, self.micro_batch_size = epochs, num_minibatches, micro_batch_size
        self.max_grad_norm, self.target_kl = max_grad_norm, target_kl
        self.critic_lr_ratio, self.critic_warmup = critic_lr_ratio, critic_warmup
        self._ratio_checked = False

    def run(self, system: OnPolicySystem, t: Trajectory, e: Experience, number: int) -> dict[str, Tensor]:
        """All steps of update `number`. Returns metrics, means over the minibatches that were stepped.

        Raises ValueError where the minibatches don't divide the responses of a process.
        """
        optimizer = system.optimizers(use_pl_optimizer=False)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        size, rest = divmod(len(t.ids), self.num_minibatches)
        if rest or not size:
            raise ValueError(
                f"model.update.num_minibatches={self.num_minibatches} doesn't divide the {len(t.ids)} responses of a process"
            )
        done: list[Statistics] = []
        minibatches = self.minibatches(len(t.ids), size, system.seed, number)
        for parts in self.parts(system, t, minibatches):
            statistics = self.accumulate(system, t, e, parts, number)
            self._check_ratio(system, statistics)
            if self.target_kl is not None and reduce_sum(statistics.sums["approx_kl"]).item() > self.target_kl:
                optimizer.zero_grad(set_to_none=True)
                break
            norm = clip(parameters, self.max_grad_norm)
            if norm.device.type == "cpu" and not norm.isfinite():
                raise Diverged(f"gradient is {norm.item()} in update {number}")
            statistics.sums["grad_norm"] = norm.detach() / world_size()  # metrics are summed over ranks
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done.append(statistics)
        system.optimizers().step()  # without gradients it moves nothing: the trainer counts one step an update
        system.lr_schedulers().step()
        count = torch.full((), float(len(done)), device=t.ids.device)
        return metrics_of(done) | {"ppo/minibatches": count}

    def minibatches(self, rows: int, size: int, seed: int, number: int) -> list[list[int]]:
        """Rows of each step; every epoch has an order of its own, a function of run, update and epoch."""
        found = []
        for epoch in range(self.epochs):
            generator = torch.Generator().manual_seed(request_seeds(seed, number, epoch, 1)[0])
            order = torch.randperm(rows, generator=generator).tolist()
            found += [order[start : start + size] for start in range(0, rows, size)]
        return found

    def parts(self, system: OnPolicySystem, t: Trajectory, minibatches: list[list[int]]) -> list[list[Part]]:
        """The minibatches in micro-batches; what the device has to know of all of them goes there in one copy."""
        groups = [micro_batches(rows, t.lengths.total, self.micro_batch_size) for rows in minibatches]
        flat = [rows for minibatch in groups for rows in minibatch]
        found = iter(parts_of(flat, t.lengths, system.score_position, t.ids.device))
        return [[next(found) for _ in minibatch] for minibatch in groups]

    def accumulate(
        self, system: OnPolicySystem, t: Trajectory, e: Experience, parts: list[Part], number: int
    ) -> Statistics:
        """Gradient of one minibatch, summed over micro-batches and averaged over ranks; whatever the split, the same."""
        rows = torch.cat([part.rows for part in parts])
        used = e.weight[rows]
        values = torch.full_like(used[0], sum(part.num_valued for part in parts))
        counts = torch.stack([(t.length[rows] * used).sum(), used.sum(), values])
        totals = Totals(*reduce_sum(counts).clamp_min(1.0))
        statistics = Statistics()
        for index, part in enumerate(parts):
            with _synchronised(system, index == len(parts) - 1):
                loss = system.objective(
                    system.net,
                    t,
                    e,
                    part,
                    totals,
                    statistics,
                    temperature=system.sampling.temperature,
                    longest=system.sampling.max_new_tokens,
                    policy_coefficient=float(number >= self.critic_warmup),
                )
                # Shares of a global mean are to be summed over ranks, which averages them.
                system.manual_backward(loss * world_size())
        return statistics

    def _check_ratio(self, system: OnPolicySystem, statistics: Statistics) -> None:
        """New and old log-probabilities of a run's first minibatch must agree: same weights, same arithmetic, no dropout."""
        if self._ratio_checked or statistics.largest_ratio_error is None:
            return
        self._ratio_checked = True
        exact = system.net.head.weight.dtype == torch.float32 and system.trainer.precision in ("32-true", "64-true")
        error = float(statistics.largest_ratio_error)
        if exact and error > RATIO_TOLERANCE:
            raise RuntimeError(
                f"the ratio before the first update is off by {error:.3g}; it must be 1 within {RATIO_TOLERANCE}"
            )
        system.log("ppo/first_ratio_error", error, batch_size=1)


@torch.no_grad()
def clip(parameters: list[torch.nn.Parameter], limit: float | None) -> Tensor:
    """Scale gradients down to a norm of `limit` (None: never); returns their norm before.

    A norm that isn't finite must not reach the weights. On a CPU the caller sees it; elsewhere nobody looks before the step, so all gradients become 0.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if norm.device.type == "cpu":
        if limit is not None and limit < norm < torch.inf:  # short ones are left alone where looking costs no wait
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return norm
    finite = norm.isfinite()
    zero_unless(finite, gradients)
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm.where(finite, torch.ones_like(norm)))
    return norm


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


def _synchronised(system: OnPolicySystem, last: bool) -> AbstractContextManager:
    """Ranks exchange gradients once a minibatch, after its last micro-batch."""
    model = system.trainer.strategy.model
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()
