"""Direct preference optimisation: DPO, cDPO, robust DPO and IPO, with the reference in the same model or computed
beforehand.

Legend: B texts, P pairs.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from alignlab.distributed.collectives import all_gather, reduce_min, world_size
from alignlab.losses.preference import DpoKind, DpoTerms, dpo
from alignlab.methods.language_models.frozen import FrozenStart
from alignlab.methods.language_models.language_method import LanguageMethod
from alignlab.methods.language_models.responses import preferred_tokens, response_lengths, response_log_probs
from alignlab.methods.method import WHOLE
from alignlab.methods.step import Step, StepOutput
from alignlab.types.language import PreferenceBatch

Split = Literal["train", "val"]


class DpoMethod(LanguageMethod):
    """Trains a policy on pairs so that it prefers what people prefer, relative to where it started.

    Args:
        net: builds the policy; its start is the reference. Under an adapter (`peft`) that is the same model with the
            adapter off, else a frozen copy. See `LanguageMethod` for the rest.
        kind: "dpo", "ipo", "cdpo" (needs label_smoothing) or "robust" (needs label_smoothing).
        beta: of the KL penalty; for ipo its tau.
        label_smoothing: of cdpo and robust, the share of pairs that are the wrong way round.
        soft_labels: dpo and cdpo learn the raters' shares instead of certain preferences.
        sft_weight: of a further term, the cross-entropy of the preferred responses as in SFT, a mean over their
            tokens: it keeps their own likelihood from falling, which the margin alone allows (arXiv:2404.19733).
        cache_reference: keeps the reference's log-probability of each text once it was computed; pairs from then on
            cost no reference forward.

    Raises:
        ValueError: a setting is out of its range or has no meaning for this kind.
    """

    shown = ("train/loss", "train/accuracy", "train/reward_margin")

    def __init__(
        self,
        net: Callable[..., nn.Module],
        *,
        kind: DpoKind = "dpo",
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        soft_labels: bool = False,
        sft_weight: float = 0.0,
        cache_reference: bool = True,
        **settings: Any,
    ) -> None:
        if beta <= 0:
            raise ValueError(f"beta is {beta}; it must be above 0")
        if not 0 <= label_smoothing < 0.5:
            raise ValueError(f"label_smoothing is {label_smoothing}; it must be at least 0 and below 0.5")
        if (label_smoothing > 0) != (kind in ("cdpo", "robust")):
            raise ValueError(
                f"label_smoothing={label_smoothing} with kind={kind}: cdpo and robust need it above 0, dpo and ipo "
                "don't take it"
            )
        if soft_labels and kind not in ("dpo", "cdpo"):
            raise ValueError(f"soft_labels=true has no meaning for kind={kind}; use dpo or cdpo")
        if sft_weight < 0:
            raise ValueError(f"sft_weight is {sft_weight}; it must be at least 0")
        super().__init__(net, **settings)
        self.kind, self.beta, self.label_smoothing, self.soft_labels = kind, beta, label_smoothing, soft_labels
        self.sft_weight, self.cache_reference = sft_weight, cache_reference
        self._start = FrozenStart(self.net)
        self._known: dict[tuple[str, int], float] = {}
        self._forget_new()

    @torch.no_grad()
    def reference_log_probs(self, batch: PreferenceBatch, split: Split) -> Tensor:
        """Log-probabilities under the reference, (B,), from memory where all texts of the batches of all ranks are
        known.

        Ranks decide together: a sharded policy is gathered by all of them or by none.
        """
        if self.cache_reference:
            numbers = batch.index.tolist() if batch.numbers is None else batch.numbers
            keys, device = [(split, i) for i in numbers], batch.ids.device
            if self._knows(keys, device):
                known = torch.tensor([self._known[key] for key in keys], dtype=torch.float32)
                return known.to(device, non_blocking=True)
        answer = self._start.log_probs(self.net, batch)
        if self.cache_reference:
            if world_size() > 1:  # a text may come to another rank next time
                keys, said = [(split, i) for i in all_gather(batch.index).tolist()], all_gather(answer)
            else:
                said = answer
            self._new_keys += keys
            self._new.append(said)
            self._coming.update(keys)
        return answer

    def _knows(self, keys: list[tuple[str, int]], device: torch.device) -> bool:
        """Whether the reference's answers to these texts are there, on all ranks."""
        if here := all(key in self._known or key in self._coming for key in keys):
            self._fetch()
        return bool(reduce_min(torch.full((), float(here), device=device))) if world_size() > 1 else here

    def _fetch(self) -> None:
        """Brings new answers to the host, in one copy: what was said first counts."""
        if self._new:
            for key, value in zip(self._new_keys, torch.cat(self._new).tolist(), strict=True):
                self._known.setdefault(key, value)
        self._forget_new()

    def _forget_new(self) -> None:
        self._new_keys: list[tuple[str, int]] = []
        self._new: list[Tensor] = []  # on the device, for these keys
        self._coming: set[tuple[str, int]] = set()  # the same keys

    def forward(self, batch: PreferenceBatch, step: Step = WHOLE) -> StepOutput:
        """Mean over the pairs, and over the preferred responses' tokens, of the whole step, on all ranks."""
        policy = response_log_probs(self.net, batch)
        loss, first, second = self._terms(batch, "train", policy)
        share = step.share(batch, lambda each: len(each.first), equal_on_ranks=True)
        metrics = {
            "accuracy": (first > second).float().mean(),
            "reward_margin": (first - second).mean(),
            "chosen_reward": first.mean(),
            "rejected_reward": second.mean(),
        }
        apart = self._by_source.of_pairs(loss, first > second, batch)
        metrics, loss = {name: value * share for name, value in metrics.items()}, loss.mean() * share
        if self.sft_weight:
            # A mean over tokens: huggingface/trl v1.12.0 trl/trainer/dpo_trainer.py:1572-1576, loss_type "sft".
            nats, tokens = self._of_preferred(policy, batch)
            sft = nats.sum() / tokens.sum() * step.share(batch, preferred_tokens)
            metrics["sft_loss"], loss = sft.detach(), loss + self.sft_weight * sft
        return StepOutput(loss, metrics, tallies=apart)

    def validate(self, batch: PreferenceBatch, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """Keeps loss and rewards of all pairs, and what the preferred responses cost."""
        policy = response_log_probs(self.net, batch)
        terms = torch.stack([*self._terms(batch, "val", policy), *self._of_preferred(policy, batch)], 1)
        self._validated.append(self._by_source.beside(terms, batch, batch.first))
        return {}

    def summarise(self) -> dict[str, Tensor]:
        """Means over all pairs of all ranks; loss of preferences and accuracy of a mixture's sources besides."""
        loss, first, second, nats, tokens, source = all_gather(torch.cat(self._validated)).unbind(1)
        self._validated.clear()
        right = (first > second).float()
        means = {"accuracy": right.mean(), "reward_margin": (first - second).mean()}
        means |= self._by_source.means(source, {"loss": loss, "accuracy": right})
        if not self.sft_weight:
            return {"loss": loss.mean(), **means}
        sft = nats.sum() / tokens.sum()
        return {"loss": loss.mean() + self.sft_weight * sft, "sft_loss": sft, **means}

    def _of_preferred(self, policy: Tensor, batch: PreferenceBatch) -> tuple[Tensor, Tensor]:
        """-log pi and the number of tokens of each pair's preferred response, (P,) each."""
        return -policy[batch.first], response_lengths(batch, like=policy)[batch.first]

    def saved(self) -> dict[str, Any]:
        """What the reference said: computed again in other batches it could differ in the last digit."""
        self._fetch()
        return {"reference_log_probs": self._known}

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        self._known = checkpoint.get("reference_log_probs", {})
        self._forget_new()

    def _terms(self, batch: PreferenceBatch, split: Split, policy: Tensor) -> DpoTerms:
        """Loss and rewards from the policy's log-probabilities of all texts, (B,)."""
        before = self.reference_log_probs(batch, split)
        lengths = response_lengths(batch, like=policy)
        first, second = batch.first, batch.second
        return dpo(
            policy[first],
            policy[second],
            before[first],
            before[second],
            beta=self.beta,
            kind=self.kind,
            label_smoothing=self.label_smoothing,
            share=batch.share.float() if self.soft_labels else None,
            first_length=lengths[first],
            second_length=lengths[second],
        )
