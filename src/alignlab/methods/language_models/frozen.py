"""A model as it was before training: the reference of methods that measure how far a policy has moved."""

import copy

import torch
from torch import Tensor, nn

from alignlab.methods.language_models.responses import response_log_probs
from alignlab.models.language.lora import has_adapters, reference
from alignlab.types.language import LabelledBatch, PreferenceBatch


class FrozenStart:
    """The reference of a net that begins to be trained: under an adapter the same net with the adapter off, else a
    frozen copy. No part of the method, its checkpoint or its optimizer.
    """

    def __init__(self, net: nn.Module) -> None:
        self._copy = None if has_adapters(net) else copy.deepcopy(net).requires_grad_(False).eval()

    @torch.no_grad()
    def log_probs(self, net: nn.Module, batch: PreferenceBatch | LabelledBatch) -> Tensor:
        """Log-probabilities of the responses of a batch, (B,), in evaluation mode. net: the policy as it is now."""
        if self._copy is not None:
            return response_log_probs(self._copy.to(batch.ids.device), batch)
        was_training = net.training
        net.eval()
        with reference(net):
            answer = response_log_probs(net, batch)
        net.train(was_training)
        return answer
