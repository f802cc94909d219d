"""Supervised fine-tuning: next-token prediction of the responses, LoRA or full.

Legend: M predicted tokens of a batch.
"""

from torch import Tensor

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
        self._validated.append(self._by_source.sums(-log_probs[:, None], batch, batch.target // batch.ids.shape[1]))
        return {}

    def summarise(self) -> dict[str, Tensor]:
        """Loss in nats a token over all ranks, and its exponential; of a mixture the loss of each source besides."""
        (loss,), by_source = self._by_source.gathered(self._validated)
        return {"loss": loss.float(), "perplexity": loss.exp().float(), **by_source}
