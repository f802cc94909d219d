"""Questions about pictures with a CLIP: which of a list of answers is right, by one vector for each side.

Legend: B questions of this process, A answers, C answers of the list.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from alignlab.losses.language import distilled_cross_entropy
from alignlab.methods.method import WHOLE
from alignlab.methods.parts.by_kind import WorthByKind
from alignlab.methods.parts.distilled import FROM_CLIP, DistilledMethod
from alignlab.methods.step import Step, StepOutput
from alignlab.models.clip import Clip
from alignlab.models.tasks.clip import ComparingClassifier
from alignlab.types.pairs import Vocabulary
from alignlab.types.picture_tasks import QuestionBatch


class ClipVqaMethod(DistilledMethod):
    """Mean over questions of the sum over their answers of weight x [(1 - alpha) CE(answer) + alpha CE(teacher)], among
    the answers of the data's list; others count nothing.

    Args:
        net: builds the `Clip`; see `DistilledMethod` for the rest.
        vocabulary: of the data, which says how many answers there are.
    """

    renames = FROM_CLIP
    shown = ("train/answer_loss", "val/loss", "val/accuracy")

    def __init__(self, net: Callable[..., Clip], *, vocabulary: Vocabulary, **settings) -> None:
        if not vocabulary.answers:
            raise ValueError("data: they have no list of answers to choose from")

        def built(vocab_size: int) -> ComparingClassifier:
            return ComparingClassifier(net(vocab_size=vocab_size), vocabulary.answers)

        super().__init__(built, vocabulary=vocabulary, **settings)
        self._worth = WorthByKind()

    def forward(self, batch: QuestionBatch, step: Step = WHOLE) -> StepOutput:
        """The loss of a batch; answer_loss is the labels' part of it."""
        share = step.share(batch, lambda each: len(each.ids), equal_on_ranks=True)
        alpha = self.alpha_at(step)
        logits = _logits(self.net, batch)
        teacher = self.opinion(lambda net: _logits(net, batch), alpha)
        loss, plain = (_weighted(logits, teacher, batch, a) * share for a in (alpha, 0.0))
        return StepOutput(loss, {"answer_loss": plain.detach()})

    def validate(self, batch: QuestionBatch, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """The labels' loss and what the likeliest answers are worth; by kind of question in `summarise`."""
        logits = _logits(self.net, batch)
        loss = _weighted(logits, None, batch, 0.0)
        if batch.credit is None:
            return {"loss": loss}
        worth = batch.credit.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
        self._worth.add(batch.kind, worth)
        return {"loss": loss, "accuracy": worth.mean()}

    def summarise(self) -> dict[str, float]:
        """What answers are worth, by kind of question."""
        return {f"{kind}_accuracy": worth for kind, worth in self._worth.means().items()}


def _logits(net: ComparingClassifier, batch: QuestionBatch) -> Tensor:
    return net(batch.image[:, None], batch.ids, batch.mask)


def _weighted(logits: Tensor, teacher: Tensor | None, batch: QuestionBatch, alpha: float) -> Tensor:
    """logits (B, C) -> ()."""
    known, total = batch.listed >= 0, torch.full((), float(len(batch.ids)), device=logits.device)
    rows = [None if given is None else given[batch.question] for given in (logits, teacher)]
    return distilled_cross_entropy(rows[0], batch.listed.clamp_min(0), batch.weight * known, rows[1], alpha, total)
