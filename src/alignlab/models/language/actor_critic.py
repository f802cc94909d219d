"""A language model as policy, a value for every token, and the reference that the policy must not leave.

One set of weights serves all three where it can: with LoRA the reference is the model with the adapter off (or with
the adapter of the supervised model on), and the critic is a linear head on the policy's hidden states unless it gets a
trunk or an adapter of its own.
Legend: B sequences, S tokens, N chosen places, W width. Sequences are padded on the right, so causal attention needs
no mask.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from alignlab.models.language.lora import has_adapters, reference, use
from alignlab.models.language.trunk import hidden_states, trunk_of
from alignlab.models.language.value_head import ScalarHead

Critic = Literal["shared", "separate", "none"]
POLICY, CRITIC = "policy", "critic"


class ActorCritic(nn.Module):
    """Policy, critic and reference over as few weights as possible.

    Args:
        model: causal language model, or a PEFT model with the adapter "policy" (and "reference" where the supervised
            model is an adapter itself).
        critic: "shared": a head on the policy's states; "separate": a trunk of its own, or with adapters an adapter of
            its own; "none": no values.
        frozen_reference: whether a model without adapters is copied now, to be the reference; one with adapters needs
            no copy.

    Raises ValueError where the model's output layer is not a plain linear one.
    """

    def __init__(
        self, model: nn.Module, critic: Critic | nn.Module = "shared", frozen_reference: bool | nn.Module = True
    ) -> None:
        super().__init__()
        self.model, self.adapters = model, has_adapters(model)
        if type(self.head) is not nn.Linear:
            raise ValueError(
                f"the output layer is a {type(self.head).__name__}; adapters and quantisation must leave it alone"
            )
        if isinstance(frozen_reference, bool):
            copied = frozen_reference and not self.adapters
            frozen_reference = copy.deepcopy(model) if copied else None
        if isinstance(frozen_reference, nn.Module):
            frozen_reference.requires_grad_(False).eval()
        self._frozen = (frozen_reference,)  # in a tuple: neither trained, nor saved, nor synchronised
        self.critic_adapter = critic == "separate" and self.adapters
        self.critic = critic if isinstance(critic, nn.Module) else None
        if critic == "separate" and not self.adapters:
            self.critic = copy.deepcopy(trunk_of(model))
        if self.critic_adapter:
            model.add_adapter(CRITIC, copy.deepcopy(model.peft_config[POLICY]))
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(f".{POLICY}." in name or f".{CRITIC}." in name)
        # Values start at 0, so that they do not tear at a trunk that they share with the policy.
        self.value_head = None if critic == "none" else ScalarHead(self.head.in_features, init="zero")
        without_dropout(self)

    def _apply(self, fn, recurse: bool = True) -> nn.Module:
        """What moves and converts a module."""
        with exact_rotations(self):
            return super()._apply(fn, recurse)

    @property
    def head(self) -> nn.Linear:
        """The policy's output layer."""
        return self.model.get_output_embeddings()

    @property
    def frozen_reference(self) -> nn.Module | None:
        """The reference where it is a model of its own; it is no sub-module."""
        return self._frozen[0]

    @property
    def reference_head(self) -> nn.Linear:
        """The reference's output layer."""
        return (self._frozen[0] or self.model).get_output_embeddings()

    @property
    def device(self) -> torch.device:
        """Where the policy is."""
        return self.head.weight.device

    def hidden(self, ids: Tensor) -> Tensor:
        """The policy's last hidden states, (B, S) -> (B, S, W)."""
        return hidden_states(self.model, ids)

    def critic_hidden(self, ids: Tensor, policy_hidden: Tensor) -> Tensor:
        """What the value head reads, (B, S) -> (B, S, W): the policy's own states where the trunk is shared."""
        if self.critic is not None:
            return hidden_states(self.critic, ids)
        if self.critic_adapter:
            with use(self.model, CRITIC):
                return hidden_states(self.model, ids)
        return policy_hidden

    def value(self, hidden: Tensor) -> Tensor:
        """Value of what has been read so far, in float32, (N, W) -> (N,)."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.value_head(hidden)

    @torch.no_grad()
    def reference_hidden(self, ids: Tensor) -> Tensor:
        """The reference's last hidden states, (B, S) -> (B, S, W)."""
        if self._frozen[0] is not None:
            return hidden_states(self._frozen[0], ids)
        with reference(self.model):
            return hidden_states(self.model, ids)

    @contextmanager
    def as_reference(self) -> Iterator[nn.Module]:
        """Within: the reference as a model by itself."""
        if self._frozen[0] is not None:
            yield self._frozen[0]
        else:
            with reference(self.model):
                yield self.model

    def move_reference(self, device: torch.device) -> None:
        """Take the frozen copy along, in the policy's dtype; it is no sub-module."""
        if self._frozen[0] is not None:
            with exact_rotations(self._frozen[0]):
                self._frozen[0].to(device, self.head.weight.dtype)

    def critic_parameters(self) -> list[nn.Parameter]:
        """What only the critic trains."""
        return [p for n, p in self.named_parameters() if n.startswith(("value_head.", "critic.")) or f".{CRITIC}." in n]


@contextmanager
def exact_rotations(module: nn.Module) -> Iterator[None]:
    """Within: a conversion leaves rotary frequencies in their own dtype, as transformers loads them.

    Rounded to bfloat16 they are off by a radian after some hundred tokens, and the sampler, which computes its own, is
    another model.
    """
    parts = [part for part in module.modules() if isinstance(part._buffers.get("inv_freq"), Tensor)]
    before = [part.inv_freq for part in parts]
    yield
    for part, frequencies in zip(parts, before, strict=True):
        part.inv_freq = frequencies.to(part.inv_freq.device)


def without_dropout(module: nn.Module) -> None:
    """Switch every dropout off, LoRA's too: the ratio must be 1 before the first step.

    All parts stay in eval mode. Gradient checkpointing alone needs training mode; then dropouts are set to 0.
    """
    checkpointed = any(getattr(part, "gradient_checkpointing", False) for part in module.modules())
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(getattr(part, "attention_dropout", None), float):
            part.attention_dropout = 0.0
    module.train(checkpointed)
