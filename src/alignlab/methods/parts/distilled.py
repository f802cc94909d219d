"""Fine-tuning towards a task beside a momentum twin of the whole net (arXiv:2107.07651, sec. 4)."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from alignlab.methods.pairs import PairMethod
from alignlab.methods.step import Step
from alignlab.models.momentum import MomentumTwin

# How weights of CLIP's and ALBEF's runs are called in a net that has a `clip`.
FROM_CLIP = {"net.encoder.vision.": "net.clip.vision.", "net.": "net.clip."}


class DistilledMethod(PairMethod):
    """A net for a task and its momentum twin, whose opinion counts `alpha`.

    Args:
        net: builds the net, `net(vocab_size=...)`, which has a `settle` as `TaskNet`; see `PairMethod` for the rest.
        distill: whether there is a twin at all.
        momentum: of the twin. alpha: weight of its opinion beside the labels.
        alpha_ramp_steps: in which alpha rises from 0. alpha_ramp_epochs: the same, by the data.
        reference: as in the published code: dropout in the teacher, and what a task's own method says; embeddings are
            decayed.
    """

    renames = {"net.vision.": "net.encoder.vision.", "twin.teacher.": "twin.teacher.encoder."}  # noqa: RUF012

    def __init__(
        self,
        net: Callable[..., nn.Module],
        *,
        distill: bool = True,
        momentum: float = 0.995,
        alpha: float = 0.4,
        alpha_ramp_steps: int = 0,
        alpha_ramp_epochs: float = 0.0,
        reference: bool = False,
        **settings,
    ) -> None:
        if not 0.0 <= alpha <= 1.0 or not 0.0 <= momentum <= 1.0:
            raise ValueError(f"alpha={alpha} and momentum={momentum} lie in [0, 1]")
        super().__init__(net, **settings)
        self.twin = MomentumTwin(self.net) if distill else None
        self.momentum, self.alpha, self.reference = momentum, alpha, reference
        self.alpha_ramp_steps, self.alpha_ramp_epochs = alpha_ramp_steps, alpha_ramp_epochs
        self.optimizer_settings = {"decay": "reference"} if reference else {}

    def settle(self, loaded: Collection[str]) -> None:
        """What begins as something that was loaded; a teacher that wasn't loaded begins as the student."""
        # the reference copies before it loads (salesforce/ALBEF b9727e4 NLVR.py:141-144): its teacher knows nothing
        self.net.settle(_within(loaded, "net."))
        if self.twin is not None and (taught := _within(loaded, "twin.teacher.")):
            self.twin.teacher.settle(taught)
        elif self.twin is not None:
            self.twin.update(self.net, momentum=0.0)

    def before_step(self, step: Step) -> None:
        """Moves the teacher, while sharded parameters are what is stored."""
        if self.twin is not None:
            self.twin.update(self.net, self.momentum)

    def alpha_at(self, step: Step) -> float:
        """What the teacher's opinion counts at a step."""
        if self.twin is None:
            return 0.0
        return step.ramped(self.alpha, self.alpha_ramp_steps, epochs=self.alpha_ramp_epochs)

    @torch.no_grad()
    def opinion(self, ask: Callable[[nn.Module], Tensor], alpha: float) -> Tensor | None:
        """What the teacher says; None where nobody asks for it."""
        if self.twin is None or alpha == 0.0:
            return None
        self.twin.teacher.train(self.training and self.reference)
        return ask(self.twin.teacher)


def _within(names: Collection[str], part: str) -> list[str]:
    return [name.removeprefix(part) for name in names if name.startswith(part)]
