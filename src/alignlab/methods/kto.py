"""KTO (arXiv:2402.01306): single responses that people call good or bad, weighed as prospect theory says.

Legend: B texts.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.distributed.collectives import all_gather, reduce_mean
from alignlab.methods.language_models.frozen import FrozenStart
from alignlab.methods.language_models.language_method import LanguageMethod
from alignlab.methods.language_models.responses import response_log_probs
from alignlab.methods.method import WHOLE
from alignlab.methods.step import Step, StepOutput
from alignlab.types.language import LabelledBatch


def kto(
    log_ratio: Tensor, desirable: Tensor, kl: Tensor, *, beta: float, desirable_weight: float, undesirable_weight: float
) -> Tensor:
    """w_D (1 - sigma(beta (r - z))) of desirable texts, w_U (1 - sigma(beta (z - r))) of the others (arXiv:2402.01306,
    eq. 8).

    log_ratio: r = log pi - log ref of each response (B,), nats. desirable (B,) bool. kl: z (), how far the policy is
    from the reference, at least 0, without gradient. -> (B,).
    """
    # huggingface/trl v1.12.0 trl/trainer/kto_trainer.py:1575-1603, loss_type kto.
    sign = torch.where(desirable, 1.0, -1.0).to(log_ratio.dtype)
    weight = torch.where(desirable, desirable_weight, undesirable_weight).to(log_ratio.dtype)
    return weight * torch.sigmoid(-beta * sign * (log_ratio - kl))


class KtoMethod(LanguageMethod):
    """Trains a policy on texts with a label each, good or bad, relative to where it started.

    How far the policy is from its start is measured on prompts with another row's response (`LabelledBatch.other_ids`),
    as the reference implementation does: an estimate of the batch, that of all ranks, that nothing learns from.

    Args:
        net: builds the policy; its start is the reference. See `LanguageMethod` for the rest.
        beta: how much a nat counts; the paper's is 0.1.
        desirable_weight: of good texts, as `undesirable_weight` of bad ones; the paper advises weights with which
            weight x number of the good is 1 to 4/3 times that of the bad.

    Raises:
        ValueError: beta or a weight isn't positive.
    """

    shown = ("train/loss", "train/kl", "train/reward_margin")

    def __init__(
        self,
        net: Callable[..., nn.Module],
        *,
        beta: float = 0.1,
        desirable_weight: float = 1.0,
        undesirable_weight: float = 1.0,
        **settings: Any,
    ) -> None:
        weights = {"beta": beta, "desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
        for name, value in weights.items():
            if value <= 0:
                raise ValueError(f"{name} is {value}; it must be above 0")
        super().__init__(net, **settings)
        self.beta = beta
        self.weights = {"desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
        self._start = FrozenStart(self.net)

    def forward(self, batch: LabelledBatch, step: Step = WHOLE) -> StepOutput:
        """Mean over the texts of the whole step, on all ranks. Raises ValueError at a batch of one."""
        if len(batch.label) < 2:
            raise ValueError("batch_size is 1; KTO compares each prompt with another row's response: at least 2")
        loss, reward, kl = self._terms(batch)
        share = step.share(batch, lambda each: len(each.label), equal_on_ranks=True)
        good = batch.label.to(reward.dtype)
        metrics = {
            "kl": kl * share,
            # sums over the good and over the bad, each over its number in the whole step
            "reward_desirable": _mean(reward, good) * step.share(batch, lambda each: each.label.sum()),
            "reward_undesirable": _mean(reward, 1 - good) * step.share(batch, lambda each: (~each.label).sum()),
        }
        metrics["reward_margin"] = metrics["reward_desirable"] - metrics["reward_undesirable"]
        rows = torch.arange(len(loss), device=loss.device)
        return StepOutput(loss.mean() * share, metrics, tallies=self._by_source.tallies({"loss": loss}, batch, rows))

    def validate(self, batch: LabelledBatch, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """Keeps loss, reward, KL, label and source of all texts."""
        loss, reward, kl = self._terms(batch)
        terms = torch.stack([loss, reward, kl.expand_as(loss), batch.label.to(loss.dtype)], 1)
        self._validated.append(self._by_source.beside(terms, batch, torch.arange(len(loss), device=loss.device)))
        return {}

    def summarise(self) -> dict[str, Tensor]:
        """Means over all texts of all ranks; `accuracy` is the share of texts that are likelier than at the start
        where they are good, and less likely where they are bad.
        """
        loss, reward, kl, label, source = all_gather(torch.cat(self._validated)).unbind(1)
        self._validated.clear()
        right = ((reward > 0) == (label > 0)).float()
        good, bad = _mean(reward, label), _mean(reward, 1 - label)
        means = {"loss": loss.mean(), "accuracy": right.mean(), "kl": kl.mean()}
        means |= {"reward_desirable": good, "reward_undesirable": bad, "reward_margin": good - bad}
        return means | self._by_source.means(source, {"loss": loss, "accuracy": right})

    def _terms(self, batch: LabelledBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Loss and reward beta (log pi - log ref) of each text, (B,), the latter without gradient; the KL, ()."""
        ratio = response_log_probs(self.net, batch) - self._start.log_probs(self.net, batch)
        other = batch._replace(ids=batch.other_ids, target=batch.other_target)
        with torch.no_grad():
            moved = response_log_probs(self.net, other) - self._start.log_probs(self.net, other)
        kl = reduce_mean(moved.mean()).clamp_min(0.0)
        return kto(ratio, batch.label, kl, beta=self.beta, **self.weights), self.beta * ratio.detach(), kl


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of the values with weight 1; 0 where there is none."""
    return (values * weights).sum() / weights.sum().clamp_min(1.0)
