"""SimPO (arXiv:2405.14734): preferences from the mean log-probability of a response's tokens, with a margin and
without a reference.

Legend: B texts, P pairs.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignlab.distributed.collectives import all_gather
from alignlab.methods.language_models.language_method import LanguageMethod
from alignlab.methods.language_models.responses import response_lengths, response_log_probs
from alignlab.methods.method import WHOLE
from alignlab.methods.step import Step, StepOutput
from alignlab.types.language import PreferenceBatch


def simpo(first: Tensor, second: Tensor, *, beta: float, margin_ratio: float) -> Tensor:
    """-log sigma(r_1 - r_2 - gamma), r = beta log pi / length, gamma = beta margin_ratio (arXiv:2405.14734, eq. 6).

    first, second (P,): log-probabilities of the preferred and of the other response, nats per token. -> (P,).
    """
    # princeton-nlp/SimPO scripts/simpo_trainer.py `simpo_loss`, loss_type sigmoid.
    return -F.logsigmoid(beta * (first - second - margin_ratio))


class SimpoMethod(LanguageMethod):
    """Trains a model on pairs so that the preferred response is the likelier one per token, by a margin.

    Args:
        net: builds the model, usually a fine-tuned one; see `LanguageMethod` for the rest.
        beta: scale of the reward; the paper's values are 2.0 to 10.
        margin_ratio: gamma / beta, the margin in nats per token; the paper's values are 0.3 to 0.8.

    Raises:
        ValueError: beta isn't positive, or the margin is negative.
    """

    shown = ("train/loss", "train/accuracy", "train/reward_margin")

    def __init__(
        self, net: Callable[..., nn.Module], *, beta: float = 2.0, margin_ratio: float = 0.5, **settings: Any
    ) -> None:
        if beta <= 0 or margin_ratio < 0:
            raise ValueError(f"beta={beta} must be above 0 and margin_ratio={margin_ratio} not below")
        super().__init__(net, **settings)
        self.beta, self.margin_ratio = beta, margin_ratio

    def forward(self, batch: PreferenceBatch, step: Step = WHOLE) -> StepOutput:
        """Mean over the pairs of the whole step, on all ranks."""
        loss, first, second = self._terms(batch).unbind(1)
        share = step.share(batch, lambda each: len(each.first), equal_on_ranks=True)
        metrics = {"accuracy": (first > second).float().mean(), "reward_margin": (first - second).mean()}
        metrics = {name: value * share for name, value in metrics.items()}
        return StepOutput(loss.mean() * share, metrics, tallies=self._by_source.of_pairs(loss, first > second, batch))

    def validate(self, batch: PreferenceBatch, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """Keeps loss and rewards of all pairs."""
        self._validated.append(self._by_source.beside(self._terms(batch), batch, batch.first))
        return {}

    def summarise(self) -> dict[str, Tensor]:
        """Means over all pairs of all ranks; loss and accuracy of a mixture's sources besides."""
        loss, first, second, source = all_gather(torch.cat(self._validated)).unbind(1)
        self._validated.clear()
        right = (first > second).float()
        means = {"loss": loss.mean(), "accuracy": right.mean(), "reward_margin": (first - second).mean()}
        return means | self._by_source.means(source, {"loss": loss, "accuracy": right})

    def _terms(self, batch: PreferenceBatch) -> Tensor:
        """Loss and both rewards of each pair, (P, 3)."""
        log_probs = response_log_probs(self.net, batch)
        mean = log_probs / response_lengths(batch, like=log_probs)
        first, second = mean[batch.first], mean[batch.second]
        loss = simpo(first, second, beta=self.beta, margin_ratio=self.margin_ratio)
        return torch.stack([loss, self.beta * first, self.beta * second], 1)
