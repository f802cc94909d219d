"""Supervised fine-tuning: next-token prediction of the responses, LoRA or full.

Legend: B rows, T tokens, W width, M predicted tokens of a batch.
"""

from collections.abc import Callable

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from alignlab.distributed.collectives import all_gather
from alignlab.losses.language_modelling import next_token_loss, token_log_probs
from alignlab.models.language.trunk import head_of, hidden_states
from alignlab.systems.accumulation import StepSums, for_backward, place_of, share_of_step
from alignlab.systems.averages import logged_means
from alignlab.systems.language.export import Exports, build_net
from alignlab.types.language import LanguageVocabulary, TokenBatch


class SftSystem(Exports, pl.LightningModule):
    """Trains a causal language model on responses: mean cross-entropy over their tokens on all ranks.

    Args:
        net: builds the model, `net(vocabulary=...)`.
        peft: adds an adapter, `peft(net)`; None trains everything.
    """

    def __init__(
        self,
        net: Callable[..., nn.Module],
        *,
        peft: Callable[..., nn.Module] | None = None,
        vocabulary: LanguageVocabulary,
        optim: Callable[..., dict],
    ) -> None:
        super().__init__()
        self.build, self.peft, self.vocabulary, self.optim = net, peft, vocabulary, optim
        self.net: nn.Module | None = None
        self._validated: list[Tensor] = []
        self._sums = StepSums()

    def configure_model(self) -> None:
        """Build the net, once."""
        if self.net is None:
            self.net = build_net(self.build, self.peft, self.vocabulary)

    def log_probs(self, batch: TokenBatch) -> Tensor:
        """(M,) log-probabilities of the predicted tokens; the head computes these positions alone."""
        packed = {"document": batch.document, "position": batch.position} if batch.packed else {}
        hidden = hidden_states(self.net, batch.ids, **packed).flatten(0, 1)
        return token_log_probs(hidden[batch.target - 1], head_of(self.net), batch.ids.flatten()[batch.target])

    def training_step(self, batch: TokenBatch, batch_index: int) -> Tensor:
        """Mean over the predicted tokens of the whole step, on all ranks."""
        log_probs = self.log_probs(batch)
        share = share_of_step(self, batch, lambda each: len(each.target))
        part = next_token_loss(log_probs, across_ranks=False) * share
        sums = self._sums.add(place_of(self, batch_index), {"train/loss": part})
        self.log_dict(logged_means(self, sums), batch_size=len(batch.ids))
        return for_backward(self, part)

    def validation_step(self, batch: TokenBatch, batch_index: int) -> None:
        """Sum of -log p and number of tokens, for an exact mean."""
        log_probs = self.log_probs(batch)
        self._validated.append(
            torch.stack([-log_probs.sum().double(), log_probs.new_full((), len(log_probs), dtype=torch.double)])
        )

    def on_validation_epoch_end(self) -> None:
        """val/loss in nats a token over all ranks, and its exponential."""
        total = all_gather(torch.stack(self._validated).sum(0, keepdim=True)).sum(0)
        self._validated.clear()
        loss = total[0] / total[1]
        self.log_dict({"val/loss": loss.float(), "val/perplexity": loss.exp().float()})

    def configure_optimizers(self) -> dict:
        """Whatever is trainable, with a schedule over the whole run."""
        return self.optim(self.net, total_steps=self.trainer.estimated_stepping_batches)
