"""Pre-training: next-token prediction of whole texts, with what keeps large language models stable.

Legend: B rows, T tokens, M predicted tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.losses.token_terms import TokenTerms, token_terms
from alignlab.methods.language_models.answering import answered
from alignlab.methods.language_models.language_method import LanguageMethod
from alignlab.methods.method import WHOLE
from alignlab.methods.step import Step, StepOutput
from alignlab.models.language.decoder.exchange import lacks
from alignlab.models.language.decoder.net import Decoder
from alignlab.models.language.trunk import head_of, hidden_states
from alignlab.types.language import TokenBatch


class LmMethod(LanguageMethod):
    """Trains a decoder on all tokens: mean cross-entropy over all ranks, and what may be added to it.

    Args:
        z_loss: weight of the mean of log^2 Z, which keeps logits from drifting (1e-4: arXiv:2204.02311, sec. 5).
        embedding_gradient: what the gradient of the word embeddings as inputs is multiplied with (0.1:
            arXiv:2210.02414, sec. 2.2).
        balance: weight of a mixture's imbalance of experts (0.01: arXiv:2101.03961, sec. 2.2).
        accuracy: says in training too how many tokens are the most likely ones.
        settings: see `LanguageMethod`.

    Raises:
        ValueError: a weight below 0, or a factor that isn't above 0 and at most 1.
    """

    shown = ("train/loss", "val/loss", "val/perplexity")

    def __init__(
        self,
        net: Callable[..., nn.Module],
        *,
        z_loss: float = 0.0,
        embedding_gradient: float = 1.0,
        balance: float = 0.01,
        accuracy: bool = False,
        **settings: object,
    ) -> None:
        for name, value in (("z_loss", z_loss), ("balance", balance)):
            if value < 0:
                raise ValueError(f"{name} is {value}; it must not be negative")
        if not 0 < embedding_gradient <= 1:
            raise ValueError(f"embedding_gradient is {embedding_gradient}; it must be above 0 and at most 1")
        super().__init__(net, **settings)
        self.z_loss, self.balance, self.accuracy = z_loss, balance, accuracy
        if embedding_gradient < 1:
            self.net.get_input_embeddings().register_forward_hook(Shrunk(embedding_gradient))

    def forward(self, batch: TokenBatch, step: Step = WHOLE) -> StepOutput:
        """Mean over the predicted tokens of the whole step, on all ranks."""
        terms, uneven = self._terms(batch)
        share = step.share(batch, lambda each: len(each.target))
        entropy = -terms.log_prob.mean()
        loss, metrics = entropy, {}
        if self.z_loss:
            squared = terms.log_z.square().mean()
            loss, metrics["log_z_squared"] = loss + self.z_loss * squared, squared
        if uneven is not None:
            loss, metrics["expert_imbalance"] = loss + self.balance * uneven, uneven
        if metrics:
            metrics["cross_entropy"] = entropy
        if self.accuracy:
            metrics["accuracy"] = terms.right.float().mean()
        apart = self._by_source.tallies({"loss": -terms.log_prob}, batch, batch.target // batch.ids.shape[1])
        return StepOutput(loss * share, {name: value * share for name, value in metrics.items()}, tallies=apart)

    def validate(self, batch: TokenBatch, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """Keeps sums over tokens and their number, of each source apart, for exact means."""
        terms, _ = self._terms(batch)
        each = torch.stack([-terms.log_prob, terms.right.to(terms.log_prob)], 1)
        self._validated.append(self._by_source.sums(each, batch, batch.target // batch.ids.shape[1]))
        return {}

    def summarise(self) -> dict[str, Tensor]:
        """Loss in nats a token over all ranks, its exponential, the share of tokens that are the most likely ones; of
        a mixture of data the loss of each source besides.
        """
        (loss, right), by_source = self._by_source.gathered(self._validated)
        return {"loss": loss.float(), "perplexity": loss.exp().float(), "accuracy": right.float(), **by_source}

    def answer_items(self, items: Sequence[Any], tokenizer: Any) -> list[dict[str, Any]]:
        """What the net says to each item of a task (`methods.language_models.answering`)."""
        return answered(self.net, items, tokenizer)

    @property
    def cannot_export(self) -> str | None:
        """Why there is no export, where transformers has no such model."""
        return lacks(self.net.config) if isinstance(self.net, Decoder) else None

    def _terms(self, batch: TokenBatch) -> tuple[TokenTerms, Tensor | None]:
        """Of the predicted tokens; how unevenly a mixture's experts are chosen."""
        packed, uneven = {}, None
        if batch.packed:
            packed = {"document": batch.document, "position": batch.position}
        if isinstance(self.net, Decoder):
            prefix = prefix_of(batch) if self.net.config.mask == "prefix" else None
            hidden, uneven = self.net(batch.ids, **packed, prefix=prefix, real=batch.document > 0)
        else:
            hidden = hidden_states(self.net, batch.ids, **packed)
        hidden = hidden.flatten(0, 1)[batch.target - 1]
        return token_terms(hidden, head_of(self.net), batch.ids.flatten()[batch.target]), uneven


class Shrunk:
    """A hook behind the embeddings: the same vectors, a part of the gradient."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, _: object, vectors: Tensor) -> Tensor:
        return vectors * self.factor + vectors.detach() * (1 - self.factor)


def prefix_of(batch: TokenBatch) -> Tensor:
    """(B, T) bool: what stands in each text before its first predicted token."""
    rows, length = batch.ids.shape
    predicted = torch.zeros(rows * length, dtype=torch.bool, device=batch.ids.device)
    predicted = predicted.index_fill(0, batch.target, True).view(rows, length)
    place = torch.where(predicted, batch.position, length)
    first = torch.full_like(batch.position, length).scatter_reduce(1, batch.document, place, "amin")
    return batch.position < first.gather(1, batch.document)
