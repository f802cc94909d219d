"""ORPO (arXiv:2403.07691): supervised fine-tuning on preferred responses and, in the same step, odds that favour
them over the others; without a reference.

Legend: B texts, P pairs.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignlab.distributed.collectives import all_gather
from alignlab.methods.language_models.language_method import LanguageMethod
from alignlab.methods.language_models.responses import preferred_tokens, response_lengths, response_log_probs
from alignlab.methods.method import WHOLE
from alignlab.methods.step import Step, StepOutput
from alignlab.types.language import PreferenceBatch


def log_odds(log_prob: Tensor) -> Tensor:
    """log(p / (1 - p)) of p = exp(log_prob), in nats; finite for every p below 1 that the dtype can tell from 1."""
    below_one = log_prob.clamp(max=-torch.finfo(log_prob.dtype).eps)
    return log_prob - torch.log(-torch.expm1(below_one))


def odds_ratio(first: Tensor, second: Tensor) -> Tensor:
    """-log sigma(log odds_1 - log odds_2) (arXiv:2403.07691, eq. 7) from mean log-probabilities a token, (P,) each."""
    # huggingface/trl v1.12.0 trl/experimental/orpo/orpo_trainer.py:694-700, without its beta and with the other sign.
    return -F.logsigmoid(log_odds(first) - log_odds(second))


class OrpoMethod(LanguageMethod):
    """Trains a model to write the preferred responses, and to hold them likelier than the others.

    The loss is the cross-entropy of the preferred responses, a mean over their tokens, plus beta times the mean over
    pairs of `odds_ratio`. The reference implementation's first term counts the prompts' tokens too.

    Args:
        net: builds the model, usually a pretrained one: fine-tuning before is what ORPO saves. See `LanguageMethod`
            for the rest.
        beta: weight of the odds ratio, the paper's lambda; its values are 0.1 to 1.

    Raises:
        ValueError: beta isn't positive.
    """

    shown = ("train/loss", "train/accuracy", "train/log_odds_ratio")

    def __init__(self, net: Callable[..., nn.Module], *, beta: float = 0.1, **settings: Any) -> None:
        if beta <= 0:
            raise ValueError(f"beta is {beta}; it must be above 0")
        super().__init__(net, **settings)
        self.beta = beta

    def forward(self, batch: PreferenceBatch, step: Step = WHOLE) -> StepOutput:
        """Means over the pairs, and over the preferred responses' tokens, of the whole step, on all ranks."""
        loss, first, second, nats, tokens = self._terms(batch).unbind(1)
        share = step.share(batch, lambda each: len(each.first), equal_on_ranks=True)
        sft = nats.sum() / tokens.sum() * step.share(batch, preferred_tokens)
        metrics = {
            "accuracy": (first > second).float().mean() * share,
            "log_odds_ratio": (log_odds(first) - log_odds(second)).detach().mean() * share,
            "sft_loss": sft.detach(),
        }
        apart = self._by_source.of_pairs(loss, first > second, batch)
        return StepOutput(sft + self.beta * loss.mean() * share, metrics, tallies=apart)

    def validate(self, batch: PreferenceBatch, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """Keeps both terms, mean log-probabilities and source of all pairs."""
        self._validated.append(self._by_source.beside(self._terms(batch), batch, batch.first))
        return {}

    def summarise(self) -> dict[str, Tensor]:
        """Means over all pairs, and tokens, of all ranks; of a mixture's sources the odds' loss and accuracy."""
        loss, first, second, nats, tokens, source = all_gather(torch.cat(self._validated)).unbind(1)
        self._validated.clear()
        right, sft = (first > second).float(), nats.sum() / tokens.sum()
        ratio = (log_odds(first) - log_odds(second)).mean()
        means = {
            "loss": sft + self.beta * loss.mean(),
            "sft_loss": sft,
            "accuracy": right.mean(),
            "log_odds_ratio": ratio,
        }
        return means | self._by_source.means(source, {"loss": loss, "accuracy": right})

    def _terms(self, batch: PreferenceBatch) -> Tensor:
        """Of each pair: loss of the odds, both mean log-probabilities, nats and tokens of the preferred one, (P, 5)."""
        log_probs = response_log_probs(self.net, batch)
        lengths = response_lengths(batch, like=log_probs)
        mean = log_probs / lengths
        first, second = mean[batch.first], mean[batch.second]
        terms = (odds_ratio(first, second), first, second, -log_probs[batch.first], lengths[batch.first])
        return torch.stack(terms, 1)
