"""The contract of a training method: plain torch, from a batch to a loss, and its state as verbs.

A loop without a trainer (docs/methods.md):

    for number, batch in enumerate(batches):
        step = Step(number)
        method.before_step(step)
        output = method(batch, step)
        output.loss.backward()
        method.after_backward(output.kept)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from alignlab.methods.parts.blind import Blind
from alignlab.methods.step import Step, StepOutput

WHOLE = Step()


class Method(nn.Module):
    """A net and whatever else a method learns or remembers, as submodules: `net`, and a twin or a queue where there is
    one.

    Parameters and buffers belong to these parts and not to the method itself, whose parts a system takes over under
    the same names. `forward` computes and changes nothing; what changes is changed by the verbs. They all have
    defaults that do nothing.

    Attributes:
        net: what is trained.
        backward_within: whether `forward` runs backward passes of its own; gradients are then set to zero before it,
            not after.
        within_batch: what is compared within a batch only, so that accumulated batches differ from a large one, and
            what to do about it.
        optimizer_settings: arguments that the optimizer's factory gets besides the net.
        rolls_out: whether a batch is prompts, which the method answers itself before it learns (`OnPolicyMethod`).
        renames: how weights of other methods that may start this one (`init_from`) are called here: prefix there ->
            prefix here.
        shown: what people watch of all that is logged, by its full name; a method of the house says three.
    """

    net: nn.Module
    backward_within: bool = False
    within_batch: str | None = None
    optimizer_settings: Mapping[str, Any] = {}
    rolls_out: bool = False
    renames: Mapping[str, str] = {}
    shown: tuple[str, ...] = ("train/loss", "val/loss")

    def settle(self, loaded: Collection[str]) -> None:
        """Changes due when weights of these names were loaded to start from, and others weren't."""

    def before_step(self, step: Step) -> None:
        """Changes due before the first batch of a step; parameters may be sharded."""

    def forward(self, batch: Any, step: Step = WHOLE) -> StepOutput:
        """The loss of a batch of training."""
        raise NotImplementedError

    def after_backward(self, kept: Any) -> None:
        """Changes due after each backward pass, before the optimizer steps; `kept` is what
        `forward` has kept for it.
        """

    def after_step(self, step: Step) -> None:
        """Changes due after the optimizer's step."""

    def validate(self, batch: Any, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """Means over a held-out batch, which are then averaged over batches by their sizes, and over ranks; what needs
        all rows is left to `summarise`.

        Args:
            index: of the batch in this validation.
            step: only its number is meant.
        """
        raise NotImplementedError

    def blind(self, batch: Any) -> dict[str, Blind]:
        """What losses of training, by name, would be of a model that tells nothing apart; from sizes alone."""
        return {}

    def summarise(self) -> dict[str, Tensor | float]:
        """Numbers of the whole validation that has just ended, over all ranks; forgets it."""
        return {}

    def saved(self) -> dict[str, Any]:
        """What a checkpoint holds besides the state dict: name -> value."""
        return {}

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Takes back what `saved` gave."""
