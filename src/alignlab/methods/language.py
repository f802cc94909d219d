"""What methods on language models share: the net with its adapter, and its export.

Legend: B texts, T tokens.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from alignlab.losses.language_modelling import token_log_probs
from alignlab.methods.export import build_net, export_model
from alignlab.methods.method import Method
from alignlab.models.language.trunk import head_of, hidden_states
from alignlab.types.language import LanguageVocabulary, PreferenceBatch


class LanguageMethod(Method):
    """Trains a causal language model.

    Args:
        net: builds the model, `net(vocabulary=...)`.
        vocabulary: of the data.
        peft: adds an adapter, `peft(net)`; None trains everything.
    """

    def __init__(
        self,
        net: Callable[..., nn.Module],
        *,
        vocabulary: LanguageVocabulary,
        peft: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.net = build_net(net, peft, vocabulary)
        self._validated: list[Tensor] = []

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Writes model or adapter in Hugging Face's format; the tokenizer is the callback's business."""
        export_model(self.net, folder)


def response_log_probs(model: nn.Module, batch: PreferenceBatch) -> Tensor:
    """Summed log-probability of each text's response, (B,), nats."""
    hidden = hidden_states(model, batch.ids).flatten(0, 1)
    tokens = token_log_probs(hidden[batch.target - 1], head_of(model), batch.ids.flatten()[batch.target])
    return tokens.new_zeros(len(batch.ids)).index_add(0, text_of(batch), tokens)


def response_lengths(batch: PreferenceBatch, like: Tensor) -> Tensor:
    """Tokens of each text's response, (B,), in the dtype of `like`."""
    ones = torch.ones_like(batch.target, dtype=like.dtype)
    return like.new_zeros(len(batch.ids)).index_add(0, text_of(batch), ones)


def text_of(batch: PreferenceBatch) -> Tensor:
    """Which text each response token belongs to, (M,) int64."""
    return batch.target // batch.ids.shape[1]
