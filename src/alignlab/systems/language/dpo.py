"""Direct preference optimisation: DPO, cDPO, robust DPO and IPO, with the reference in the same model or computed beforehand.

Legend: B texts, P pairs, T tokens, M response tokens.
"""

import copy
from collections.abc import Callable
from typing import Literal

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from alignlab.distributed.collectives import all_gather, reduce_min, world_size
from alignlab.losses.language_modelling import token_log_probs
from alignlab.losses.preference import DpoKind, dpo
from alignlab.models.language.lora import has_adapters, reference
from alignlab.models.language.trunk import head_of, hidden_states
from alignlab.systems.accumulation import StepSums, for_backward, place_of, share_of_step
from alignlab.systems.averages import logged_means
from alignlab.systems.language.export import Exports, build_net
from alignlab.types.language import LanguageVocabulary, PreferenceBatch


class DpoSystem(Exports, pl.LightningModule):
    """Trains a policy on pairs so that it prefers what people prefer, relative to where it started.

    Args:
        net: builds the policy, `net(vocabulary=...)`; its start is the reference.
        peft: adds an adapter; the reference is then the same model with the adapter off. Without one it is a frozen copy.
        kind: "dpo", "ipo", "cdpo" (needs label_smoothing) or "robust" (needs label_smoothing).
        beta: of the KL penalty; for ipo its tau.
        soft_labels: dpo and cdpo learn the raters' shares instead of certain preferences.
        cache_reference: keeps the reference's log-probability of each text once it was computed; pairs from then on cost no reference forward.
    """

    def __init__(
        self,
        net: Callable[..., nn.Module],
        *,
        peft: Callable[..., nn.Module] | None = None,
        kind: DpoKind = "dpo",
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        soft_labels: bool = False,
        cache_reference: bool = True,
        vocabulary: LanguageVocabulary,
        optim: Callable[..., dict],
    ) -> None:
        super().__init__()
        if beta <= 0:
            raise ValueError(f"model.beta is {beta}; it must be above 0")
        if not 0 <= label_smoothing < 0.5:
            raise ValueError(f"model.label_smoothing is {label_smoothing}; it must be at least 0 and below 0.5")
        if (label_smoothing > 0) != (kind in ("cdpo", "robust")):
            raise ValueError(
                f"model.label_smoothing={label_smoothing} with model.kind={kind}: cdpo and robust need it above 0, dpo and ipo don't take it"
            )
        if soft_labels and kind not in ("dpo", "cdpo"):
            raise ValueError(f"model.soft_labels=true has no meaning for model.kind={kind}; use dpo or cdpo")
        self.build, self.peft, self.vocabulary, self.optim = net, peft, vocabulary, optim
        self.kind, self.beta, self.label_smoothing, self.soft_labels = kind, beta, label_smoothing, soft_labels
        self.cache_reference = cache_reference
        self.net: nn.Module | None = None
        self._frozen: list[nn.Module] = []  # in a list: no part of the system, its checkpoint or its optimizer
        self._known: dict[tuple[str, int], float] = {}
        self._forget_new()
        self._validated: list[Tensor] = []
        self._sums = StepSums()

    def configure_model(self) -> None:
        """Build policy and reference, once."""
        if self.net is None:
            self.net = build_net(self.build, self.peft, self.vocabulary)
            if not has_adapters(self.net):
                self._frozen = [copy.deepcopy(self.net).requires_grad_(False).eval()]

    def log_probs(self, model: nn.Module, batch: PreferenceBatch) -> Tensor:
        """(B,) summed log-probability of each text's response."""
        hidden = hidden_states(model, batch.ids).flatten(0, 1)
        tokens = token_log_probs(hidden[batch.target - 1], head_of(model), batch.ids.flatten()[batch.target])
        return tokens.new_zeros(len(batch.ids)).index_add(0, batch.target // batch.ids.shape[1], tokens)

    @torch.no_grad()
    def reference_log_probs(self, batch: PreferenceBatch, split: Literal["train", "val"]) -> Tensor:
        """(B,) the same under the reference, from memory where all texts of the batches of all ranks are known.

        Ranks decide together: a sharded policy is gathered by all of them or by none.
        """
        if self.cache_reference:
            numbers = batch.index.tolist() if batch.numbers is None else batch.numbers
            keys, device = [(split, i) for i in numbers], batch.ids.device
            if self._knows(keys, device):
                known = torch.tensor([self._known[key] for key in keys], dtype=torch.float32)
                return known.to(device, non_blocking=True)
        policy_was_training = self.net.training
        self.net.eval()
        if self._frozen:
            found = self.log_probs(self._frozen[0].to(batch.ids.device), batch)
        else:
            with reference(self.net):
                found = self.log_probs(self.net, batch)
        self.net.train(policy_was_training)
        if self.cache_reference:
            if world_size() > 1:  # a text may come to another rank next time
                keys, said = [(split, i) for i in all_gather(batch.index).tolist()], all_gather(found)
            else:
                said = found
            self._new_keys += keys
            self._new.append(said)
            self._coming.update(keys)
        return found

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

    def training_step(self, batch: PreferenceBatch, batch_index: int) -> Tensor:
        """Mean over the pairs of the whole step, on all ranks."""
        loss, first, second = self._terms(batch, "train")
        share = share_of_step(self, batch, lambda each: len(each.first), equal_on_ranks=True)
        parts = {
            "train/loss": loss.mean(),
            "train/accuracy": (first > second).float().mean(),
            "train/reward_margin": (first - second).mean(),
            "train/chosen_reward": first.mean(),
            "train/rejected_reward": second.mean(),
        }
        parts = {name: value * share for name, value in parts.items()}
        sums = self._sums.add(place_of(self, batch_index), parts)
        self.log_dict(logged_means(self, sums), batch_size=len(batch.ids))
        return for_backward(self, parts["train/loss"])

    def validation_step(self, batch: PreferenceBatch, batch_index: int) -> None:
        """Keeps loss and rewards of all pairs."""
        self._validated.append(torch.stack(self._terms(batch, "val"), 1))

    def on_validation_epoch_end(self) -> None:
        """Means over all pairs of all ranks."""
        loss, first, second = all_gather(torch.cat(self._validated)).unbind(1)
        self._validated.clear()
        accuracy = (first > second).float().mean()
        self.log_dict({"val/loss": loss.mean(), "val/accuracy": accuracy, "val/reward_margin": (first - second).mean()})

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """What the reference said goes along: computed again in other batches it could differ in the last digit."""
        self._fetch()
        checkpoint["reference_log_probs"] = self._known

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self._known = checkpoint.get("reference_log_probs", {})
        self._forget_new()

    def configure_optimizers(self) -> dict:
        """Whatever is trainable, with a schedule over the whole run."""
        return self.optim(self.net, total_steps=self.trainer.estimated_stepping_batches)

    def _terms(self, batch: PreferenceBatch, split: Literal["train", "val"]) -> tuple[Tensor, Tensor, Tensor]:
        policy, before = self.log_probs(self.net, batch), self.reference_log_probs(batch, split)
        lengths = policy.new_zeros(len(batch.ids)).index_add(
            0, batch.target // batch.ids.shape[1], torch.ones_like(batch.target, dtype=policy.dtype)
        )
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
