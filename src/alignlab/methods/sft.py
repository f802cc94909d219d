"""Supervised fine-tuning: next-token prediction of the responses, LoRA or full.

Legend: M predicted tokens of a batch.
"""

import torch
from torch import Tensor

from alignlab.distributed.collectives import all_gather
from alignlab.losses.language_modelling import next_token_loss, token_log_probs
from alignlab.methods.language_models.language_method import LanguageMethod
from alignlab.methods.method import WHOLE
from alignlab.methods.step import Step, StepOutput
from alignlab.models.language.trunk import head_of, hidden_states
from alignlab.types.language import TokenBatch


class SftMethod(LanguageMethod):
    """Trains a causal language model on responses: mean cross-entropy over their tokens on all ranks.

    See `LanguageMethod` for the arguments.
    """

    shown = ("train/loss", "val/loss", "val/perplexity")

    def log_probs(self, batch: TokenBatch) -> Tensor:
        """(M,) log-probabilities of the predicted tokens; the head computes these positions alone."""
        packed = {"document": batch.document, "position": batch.position} if batch.packed else {}
        hidden = hidden_states(self.net, batch.ids, **packed).flatten(0, 1)
        return token_log_probs(hidden[batch.target - 1], head_of(self.net), batch.ids.flatten()[batch.target])

    def forward(self, batch: TokenBatch, step: Step = WHOLE) -> StepOutput:
        """Mean over the predicted tokens of the whole step, on all ranks."""
        log_probs = self.log_probs(batch)
        share = step.share(batch, lambda each: len(each.target))
        apart = self._by_source.tallies({"loss": -log_probs}, batch, batch.target // batch.ids.shape[1])
        return StepOutput(next_token_loss(log_probs, across_ranks=False) * share, tallies=apart)

    def validate(self, batch: TokenBatch, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """Keeps the sum of -log p and the number of tokens, for an exact mean; those of each source apart."""
        log_probs = self.log_probs(batch)
        source = self._by_source.of(batch, batch.target // batch.ids.shape[1])
        sums = log_probs.new_zeros(max(len(self._by_source.names), 1), 2, dtype=torch.double)
        terms = torch.stack([-log_probs.double(), torch.ones_like(log_probs, dtype=torch.double)], 1)
        self._validated.append(sums.index_add_(0, source, terms))
        return {}

    def summarise(self) -> dict[str, Tensor]:
        """Loss in nats a token over all ranks, and its exponential; of a mixture the loss of each source besides."""
        sums = all_gather(torch.stack(self._validated).sum(0, keepdim=True)).sum(0)  # (sources, 2)
        self._validated.clear()
        total, tokens = sums.sum(0)
        loss = total / tokens
        apart = zip(self._by_source.names, (sums[:, 0] / sums[:, 1]).float(), strict=False)
        by_source = {f"loss_{name}": mean for name, mean in apart}
        return {"loss": loss.float(), "perplexity": loss.exp().float(), **by_source}
