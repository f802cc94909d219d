"""What a method is told of the optimizer step that a batch belongs to, and what it answers."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alignlab.distributed.collectives import reduce_mean


class Step(NamedTuple):
    """Where a batch stands in training. The default: the first step, of which this batch is the whole."""

    number: int = 0  # optimizer steps taken before
    index: int = 0  # of this batch among those of its step
    total: int = 1  # batches of the step (gradient accumulation)
    ahead: Callable[[], Sequence[Any]] | None = (
        None  # gives all batches of the step, on the host, before the first is used
    )
    scale: Tensor | float = 1.0  # what the loss is multiplied with before its backward pass (float16), for inner passes
    of_epoch: int | None = None  # optimizer steps of an epoch, where that is known

    @property
    def last(self) -> bool:
        """Whether the optimizer steps after this batch."""
        return self.index == self.total - 1

    def ramped(self, value: float, steps: int, start: int = 0, epochs: float = 0.0) -> float:
        """A value that is 0 before step `start` and rises from there in so many steps, or epochs.

        Raises ValueError where the steps of an epoch are needed and nobody knows them.
        """
        if self.number < start:
            return 0.0
        if epochs > 0 and self.number > start:
            if self.of_epoch is None:
                raise ValueError("a ramp in epochs needs to know an epoch's steps: Step(number, of_epoch=...)")
            steps = round(epochs * self.of_epoch)
        elif epochs > 0:
            return 0.0
        return value if steps <= 0 else value * min(1.0, (self.number - start) / steps)

    def batches(self, batch: Any) -> Sequence[Any]:
        """All batches of this process in the step of `batch`."""
        return (batch,) if self.ahead is None else self.ahead()

    def share(
        self, batch: Any, count: Callable[[Any], int | Tensor], *, equal_on_ranks: bool = False
    ) -> Tensor | float:
        """This batch's part in a mean over the whole step: what it counts over what the step counts, the latter a mean
        over ranks.

        The sum of share x mean over the batches of a step is then, averaged over ranks, the mean over all.

        Args:
            batch: a NamedTuple that begins with a tensor.
            count: a batch -> how many the mean runs over: from sizes alone, or a tensor () that nobody waits for.
            equal_on_ranks: nothing needs to be exchanged.
        """
        own, step = count(batch), sum(count(each) for each in self.batches(batch))
        if equal_on_ranks:
            return own / max(step, 1)
        step = step.to(batch[0].device, torch.float32, non_blocking=True) if isinstance(step, Tensor) else float(step)
        return own / reduce_mean(torch.full((), 1.0, device=batch[0].device) * step).clamp_min(1.0)


class StepOutput(NamedTuple):
    """What a method makes of one batch."""

    loss: Tensor  # () to be differentiated: this batch's part of the step's loss; the parts of a step add up
    # () each, besides the loss: this batch's parts of means over the step
    metrics: dict[str, Tensor] = {}  # noqa: RUF012
    state: dict[str, Tensor] = {}  # noqa: RUF012 - () each: values as they stand, such as a temperature
    kept: Any = None  # what `after_backward` needs
    # (2,) each, a sum and how many it is of: means of rows that not every step has, over all since the last logged step
    tallies: dict[str, Tensor] = {}  # noqa: RUF012
