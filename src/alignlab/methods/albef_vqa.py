"""Questions about pictures with an ALBEF (arXiv:2107.07651, sec. 4): an encoder asks the picture, a decoder answers.

Legend: B questions of this process, A answers, L tokens of an answer, T of a question, N candidates, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from alignlab.losses.language import distilled_cross_entropy
from alignlab.methods.method import WHOLE
from alignlab.methods.parts.by_kind import WorthByKind
from alignlab.methods.parts.distilled import DistilledMethod
from alignlab.methods.step import Step, StepOutput
from alignlab.models.albef import Albef
from alignlab.models.tasks.albef import AnsweringNet
from alignlab.types.picture_tasks import Answers, QuestionBatch


def vqa_net(albef: Albef) -> AnsweringNet:
    """The surgery: text and fusion layers read question and picture; copies of the fusion layers, embeddings and
    language head become a decoder whose cross-attention looks at what they give.
    """
    return AnsweringNet(albef)


class AlbefVqaMethod(DistilledMethod):
    """Trains `vqa_net`: mean over questions of the sum over their answers of weight x -log p(answer), a word's part of
    which is (1 - alpha) CE(word, student) + alpha CE(teacher, student).

    Args:
        net: builds the `Albef` that is operated on; see `DistilledMethod` for the rest.
        shortlist: answers, those with the likeliest first word, whose whole likelihood is compared; None: all.
        answer_length: words that a free answer may have.
    """

    shown = ("train/answer_loss", "val/ranked_accuracy", "val/free_accuracy")

    def __init__(
        self, net: Callable[..., Albef], *, shortlist: int | None = None, answer_length: int = 6, **settings
    ) -> None:
        for key, value in (("shortlist", 1 if shortlist is None else shortlist), ("answer_length", answer_length)):
            if value < 1:
                raise ValueError(f"{key}={value} must be at least 1")
        super().__init__(lambda vocab_size: vqa_net(net(vocab_size=vocab_size)), **settings)
        self.shortlist, self.answer_length = shortlist, answer_length
        self._worth = WorthByKind()  # of ranked answers in the present validation

    def forward(self, batch: QuestionBatch, step: Step = WHOLE) -> StepOutput:
        """The loss of a batch; answer_loss is the labels' part of it."""
        share = step.share(batch, lambda each: len(each.ids), equal_on_ranks=True)
        alpha = self.alpha_at(step)
        logits = _answering(self.net, batch)
        teacher = self.opinion(lambda net: _answering(net, batch), alpha)
        loss, plain = (_weighted(logits, teacher, batch, a) * share for a in (alpha, 0.0))
        return StepOutput(loss, {"answer_loss": plain.detach()})

    def validate(self, batch: QuestionBatch, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """The labels' loss, and what ranked and free answers are worth; by kind of question in `summarise`."""
        loss = _weighted(_answering(self.net, batch), None, batch, 0.0)
        if batch.candidates is None:
            return {"loss": loss}
        states = self.net.ask(batch.image, batch.ids, batch.mask)
        rows = torch.arange(len(batch.ids), device=batch.ids.device)
        # salesforce/ALBEF b9727e4 models/model_vqa.py:190-199 counts the first word twice
        scores = self.net.rank(states, batch.candidates, self.shortlist, twice=self.reference)
        ranked = batch.credit[rows, scores.argmax(1)]
        written = self.net.write(states, self.vocabulary.cls_id, self.vocabulary.sep_id, self.answer_length)
        free = (equal_answers(written, batch.candidates) * batch.credit).sum(1)
        self._worth.add(batch.kind, ranked)
        return {"loss": loss, "ranked_accuracy": ranked.mean(), "free_accuracy": free.mean()}

    def summarise(self) -> dict[str, float]:
        """What ranked answers are worth, by kind of question."""
        return {f"ranked_{kind}_accuracy": worth for kind, worth in self._worth.means().items()}


def equal_answers(written: Answers, candidates: Answers) -> Tensor:
    """(B, N) which candidate was written word by word."""
    length = max(written.ids.shape[1], candidates.ids.shape[1])

    def padded(answers: Answers) -> Tensor:
        ids = answers.ids.masked_fill(~answers.mask, -1)
        return torch.nn.functional.pad(ids, (0, length - ids.shape[1]), value=-1)

    return (padded(written)[:, None] == padded(candidates)[None]).all(2)


def _answering(net: AnsweringNet, batch: QuestionBatch) -> Tensor:
    return net(batch.image, batch.ids, batch.mask, batch.answers, batch.question).flatten(0, 1)


def _weighted(logits: Tensor, teacher: Tensor | None, batch: QuestionBatch, alpha: float) -> Tensor:
    """logits (A * (L - 1), V) of the answers' words after [CLS] -> ()."""
    ids, mask = (part[:, 1:] for part in batch.answers)
    weight = (batch.weight[:, None] * mask).flatten()
    total = torch.full((), float(len(batch.ids)), device=logits.device)
    return distilled_cross_entropy(logits, ids.flatten(), weight, teacher, alpha, total)
