"""Reward models from comparisons: Bradley-Terry with the raters' shares as soft labels.

Legend: B texts, P pairs, T tokens.
"""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from alignlab.distributed.collectives import all_gather
from alignlab.evaluation.preference import fitted_scale, pair_metrics
from alignlab.losses.preference import bradley_terry
from alignlab.models.language.reward import RewardModel
from alignlab.models.language.value_head import Pool
from alignlab.systems.accumulation import StepSums, for_backward, place_of, share_of_step
from alignlab.systems.averages import logged_means
from alignlab.systems.language.export import build_net, export_model
from alignlab.types.language import LanguageVocabulary, PreferenceBatch


class RewardSystem(pl.LightningModule):
    """Trains a `RewardModel` on pairs of texts.

    Args:
        net: builds the language model or encoder, `net(vocabulary=...)`.
        peft: adds an adapter, `peft(net)`; None trains everything. The head is trained in both cases.
        pool: the state of the last token, or the mean over tokens.
        soft_labels: learn the share of raters that prefers the first; else the first is preferred for certain.
        margin_weight: times the difference of the ratings is what r_1 - r_2 has to exceed.
        centering: weight of (r_1 + r_2)^2.
    """

    def __init__(
        self,
        net: Callable[..., nn.Module],
        *,
        peft: Callable[..., nn.Module] | None = None,
        pool: Pool = "last",
        soft_labels: bool = True,
        margin_weight: float = 0.0,
        centering: float = 0.0,
        vocabulary: LanguageVocabulary,
        optim: Callable[..., dict],
    ) -> None:
        super().__init__()
        if margin_weight < 0 or centering < 0:
            raise ValueError(
                f"model.margin_weight={margin_weight} and model.centering={centering} must not be negative"
            )
        self.build, self.peft, self.vocabulary, self.optim = net, peft, vocabulary, optim
        self.pool, self.soft_labels = pool, soft_labels
        self.margin_weight, self.centering = margin_weight, centering
        self.net: RewardModel | None = None
        self._validated: list[Tensor] = []
        self._sums = StepSums()

    def configure_model(self) -> None:
        """Build the net, once."""
        if self.net is None:
            self.net = RewardModel(build_net(self.build, self.peft, self.vocabulary), self.pool)

    def training_step(self, batch: PreferenceBatch, batch_index: int) -> Tensor:
        """Mean over the pairs of the whole step, on all ranks."""
        first, second = self._rewards(batch)
        loss = bradley_terry(first, second, self._target(batch), margin=self._margin(batch), centering=self.centering)
        with torch.no_grad():
            accuracy = ((first > second).float() + 0.5 * (first == second).float()).mean()
        share = share_of_step(self, batch, lambda each: len(each.first), equal_on_ranks=True)
        parts = {"train/loss": loss * share, "train/accuracy": accuracy * share}
        logged = logged_means(self, self._sums.add(place_of(self, batch_index), parts))
        self.log_dict(logged, batch_size=len(batch.ids))
        return for_backward(self, parts["train/loss"])

    def validation_step(self, batch: PreferenceBatch, batch_index: int) -> None:
        """Keeps r_1, r_2, share and margin of all pairs."""
        first, second = self._rewards(batch)
        self._validated.append(torch.stack([first, second, self._target(batch), batch.margin.float()], 1))

    def on_validation_epoch_end(self) -> None:
        """Statistics of all pairs of all ranks; mean and deviation of the rewards and the calibrating scale go into the model.

        The scale is fitted to the first half of the pairs; `ece` and `brier` are those of the second half, whose texts the fit hasn't seen.
        """
        local = torch.cat(self._validated).float()
        self._validated.clear()
        first, second, share, margin = all_gather(local).cpu().unbind(1)
        difference, rewards, half = first - second, torch.cat([first, second]), len(first) // 2
        scale = fitted_scale(difference[:half], share[:half]) if half else 1.0
        raw = pair_metrics(difference, share, margin)
        calibrated = pair_metrics(scale * difference[half:], share[half:], margin[half:])
        found = {name: calibrated[name] if name in ("ece", "brier", "log_loss") else raw[name] for name in raw}
        found |= {"loss": raw["log_loss"], "ece_uncalibrated": raw["ece"], "scale": scale}
        found |= {"reward_mean": float(rewards.mean()), "reward_std": float(rewards.std())}
        self.net.mean.fill_(found["reward_mean"])
        self.net.std.fill_(max(found["reward_std"], 1e-6))
        self.net.scale.fill_(scale)
        self.log_dict({f"val/{name}": value for name, value in found.items()})

    def configure_optimizers(self) -> dict:
        """Whatever is trainable, with a schedule over the whole run."""
        return self.optim(self.net, total_steps=self.trainer.estimated_stepping_batches)

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Model or adapter, and the head with mean and deviation."""
        export_model(self.net.model, folder)
        self.net.save_head(folder)

    def _rewards(self, batch: PreferenceBatch) -> tuple[Tensor, Tensor]:
        rewards = self.net(batch.ids, batch.mask)
        return rewards[batch.first], rewards[batch.second]

    def _target(self, batch: PreferenceBatch) -> Tensor:
        return batch.share.float() if self.soft_labels else torch.ones_like(batch.share, dtype=torch.float)

    def _margin(self, batch: PreferenceBatch) -> Tensor | None:
        return self.margin_weight * batch.margin if self.margin_weight else None
