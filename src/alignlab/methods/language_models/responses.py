"""Log-probabilities of responses, the head on their tokens alone.

Legend: B texts, M response tokens.
"""

import torch
from torch import Tensor, nn

from alignlab.losses.language_modelling import token_log_probs
from alignlab.models.language.trunk import head_of, hidden_states
from alignlab.types.language import LabelledBatch, PreferenceBatch


def response_log_probs(model: nn.Module, batch: PreferenceBatch | LabelledBatch) -> Tensor:
    """Summed log-probability of each text's response, (B,), nats."""
    hidden = hidden_states(model, batch.ids).flatten(0, 1)
    tokens = token_log_probs(hidden[batch.target - 1], head_of(model), batch.ids.flatten()[batch.target])
    return tokens.new_zeros(len(batch.ids)).index_add(0, text_of(batch), tokens)


def response_lengths(batch: PreferenceBatch, like: Tensor) -> Tensor:
    """Tokens of each text's response, (B,), in the dtype of `like`."""
    ones = torch.ones_like(batch.target, dtype=like.dtype)
    return like.new_zeros(len(batch.ids)).index_add(0, text_of(batch), ones)


def preferred_tokens(batch: PreferenceBatch) -> Tensor:
    """How many tokens the preferred responses of all pairs have; on the device, where the batch is."""
    return response_lengths(batch, like=batch.share)[batch.first].sum()


def text_of(batch: PreferenceBatch | LabelledBatch) -> Tensor:
    """Which text each response token belongs to, (M,) int64."""
    return batch.target // batch.ids.shape[1]
