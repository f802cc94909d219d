"""Reward models from comparisons: Bradley-Terry with the raters' shares as soft labels.

Legend: P pairs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignlab.distributed.collectives import all_gather
from alignlab.evaluation.preference import fitted_scale, pair_metrics
from alignlab.losses.preference import bradley_terry
from alignlab.methods.language_models.export import export_model
from alignlab.methods.language_models.language_method import LanguageMethod
from alignlab.methods.method import WHOLE
from alignlab.methods.step import Step, StepOutput
from alignlab.models.language.reward import RewardModel, save_classifier
from alignlab.models.language.value_head import Pool
from alignlab.types.language import PreferenceBatch


class RewardMethod(LanguageMethod):
    """Trains a `RewardModel` on pairs of texts; its head is trained under an adapter too.

    Args:
        net: builds a language model or an encoder; see `LanguageMethod` for the rest.
        pool: the state of the last token, or the mean over tokens.
        soft_labels: learn the share of raters that prefers the first; else the first is preferred for certain.
        margin_weight: times the difference of the ratings is what r_1 - r_2 has to exceed.
        centering: weight of (r_1 + r_2)^2.

    Raises:
        ValueError: a negative weight.
    """

    net: RewardModel
    shown = ("train/loss", "train/accuracy", "val/accuracy")

    def __init__(
        self,
        net: Callable[..., nn.Module],
        *,
        pool: Pool = "last",
        soft_labels: bool = True,
        margin_weight: float = 0.0,
        centering: float = 0.0,
        **settings: Any,
    ) -> None:
        if margin_weight < 0 or centering < 0:
            raise ValueError(f"margin_weight={margin_weight} and centering={centering} must not be negative")
        super().__init__(net, **settings)
        self.net = RewardModel(self.net, pool)
        self.net.head.bias.requires_grad_(centering > 0)  # comparisons don't see it
        self.soft_labels, self.margin_weight, self.centering = soft_labels, margin_weight, centering

    def forward(self, batch: PreferenceBatch, step: Step = WHOLE) -> StepOutput:
        """Mean over the pairs of the whole step, on all ranks."""
        first, second = self._rewards(batch)
        margin = self.margin_weight * batch.margin if self.margin_weight else None
        loss = bradley_terry(first, second, self._target(batch), margin=margin, centering=self.centering)
        with torch.no_grad():
            right = (first > second).float() + 0.5 * (first == second).float()
            nats = F.binary_cross_entropy_with_logits(first - second, self._target(batch), reduction="none")
        share = step.share(batch, lambda each: len(each.first), equal_on_ranks=True)
        apart = self._by_source.of_pairs(nats, right, batch)
        return StepOutput(loss * share, {"accuracy": right.mean() * share}, tallies=apart)

    def validate(self, batch: PreferenceBatch, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """Keeps r_1, r_2, share, margin and source of all pairs."""
        first, second = self._rewards(batch)
        terms = torch.stack([first, second, self._target(batch), batch.margin.float()], 1)
        self._validated.append(self._by_source.beside(terms, batch, batch.first))
        return {}

    def summarise(self) -> dict[str, float]:
        """Statistics of all pairs of all ranks; mean and deviation of the rewards and the calibrating scale go into
        the model.

        The scale is fitted to the first half of the pairs; `ece` and `brier` are those of the second half, whose texts
        the fit hasn't seen.
        """
        local = torch.cat(self._validated).float()
        self._validated.clear()
        first, second, share, margin, source = all_gather(local).cpu().unbind(1)
        difference, rewards, half = first - second, torch.cat([first, second]), len(first) // 2
        scale = fitted_scale(difference[:half], share[:half]) if half else 1.0
        raw = pair_metrics(difference, share, margin)
        calibrated = pair_metrics(scale * difference[half:], share[half:], margin[half:])
        values = {name: calibrated[name] if name in ("ece", "brier", "log_loss") else raw[name] for name in raw}
        values |= {"loss": raw["log_loss"], "ece_uncalibrated": raw["ece"], "scale": scale}
        for number, name in enumerate(self._by_source.names):
            of_source = source == number
            own = pair_metrics(difference[of_source], share[of_source], margin[of_source])
            values |= {f"accuracy_{name}": own["accuracy"], f"loss_{name}": own["log_loss"]}
        values |= {"reward_mean": float(rewards.mean()), "reward_std": float(rewards.std())}
        self.net.mean.fill_(values["reward_mean"])
        self.net.std.fill_(max(values["reward_std"], 1e-6))
        self.net.scale.fill_(scale)
        return values

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Writes model or adapter, and the head with mean and deviation; a causal model as transformers' classifier."""
        if not save_classifier(self.net, folder):
            export_model(self.net.model, folder)
        self.net.save_head(folder)

    def _rewards(self, batch: PreferenceBatch) -> tuple[Tensor, Tensor]:
        rewards = self.net(batch.ids, batch.mask)
        return rewards[batch.first], rewards[batch.second]

    def _target(self, batch: PreferenceBatch) -> Tensor:
        return batch.share.float() if self.soft_labels else torch.ones_like(batch.share, dtype=torch.float)
