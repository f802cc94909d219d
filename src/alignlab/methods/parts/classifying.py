"""Which of some classes a text about pictures is: distilled cross-entropy.

Legend: B rows of this process, C classes.
"""

import math

import torch
from torch import Tensor

from alignlab.losses.language import distilled_cross_entropy
from alignlab.methods.method import WHOLE
from alignlab.methods.parts.blind import Blind
from alignlab.methods.parts.distilled import DistilledMethod
from alignlab.methods.step import Step, StepOutput
from alignlab.types.picture_tasks import JudgedBatch

CLASSES = (
    "texts don't belong to their pictures, or labels to neither (look at rows of the data)",
    "the net starts from nothing: let it begin from a trained ALBEF (init_from=)",
    "the learning rate is too high for the fusion, or far too low",
)


class ClassifierMethod(DistilledMethod):
    """Mean over rows of (1 - alpha) CE(label, student) + alpha CE(teacher, student), in float32.

    Equal on R processes with B rows and one with R * B, and over accumulated batches.
    """

    shown = ("train/class_loss", "train/accuracy", "val/accuracy")
    pictures = 1  # of a row

    def forward(self, batch: JudgedBatch, step: Step = WHOLE) -> StepOutput:
        """The loss of a batch; class_loss is the labels' part of it."""
        share = step.share(batch, lambda each: len(each.label), equal_on_ranks=True)
        alpha, rows = self.alpha_at(step), (batch.image, batch.ids, batch.mask)
        logits = self.net(*rows)
        teacher = self.opinion(lambda net: net(*rows), alpha)
        loss = distilled_cross_entropy(logits, batch.label, torch.ones_like(logits[:, 0]), teacher, alpha) * share
        plain = {name: value.detach() * share for name, value in _plain(logits, batch.label).items()}
        return StepOutput(loss, {"class_loss": plain["loss"], "accuracy": plain["accuracy"]})

    def validate(self, batch: JudgedBatch, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """Cross-entropy and accuracy on held-out rows, without the teacher."""
        return _plain(self.net(batch.image, batch.ids, batch.mask), batch.label)

    def blind(self, batch: JudgedBatch) -> dict[str, Blind]:
        """Of classes that are equally frequent."""
        classes = self.net.head[-1].out_features
        return {"class_loss": Blind(math.log(classes), f"ln({classes})", CLASSES)}


def _plain(logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    logits = logits.float()
    loss = torch.nn.functional.cross_entropy(logits, label)
    return {"loss": loss, "accuracy": (logits.argmax(1) == label).float().mean()}
