"""A language model as policy, a value for every token, and the reference that the policy must not leave.

One trunk serves all of it where it can: with LoRA the reference is the same weights with the adapters off (or with the adapter of the supervised
model on), and the critic is a linear head on the policy's hidden states unless it gets a trunk or adapter of its own.
Legend: B sequences, S tokens, N chosen places, D width, V vocabulary. Sequences are padded on the right, so causal attention needs no mask.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from alignlab.models.language import load_language_model, load_tokenizer, resolve_model

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Critic = Literal["shared", "separate", "none"]
POLICY, CRITIC, REFERENCE = "policy", "critic", "reference"


class ActorCritic(nn.Module):
    """Policy, critic and reference over as few weights as possible.

    Parameters
    ----------
    model
        causal language model, or a PEFT model with the adapter `policy` (and `critic`, `reference` where they exist).
    critic
        trunk of the critic: the policy's ("shared"), a module of its own, or an adapter ("separate" with adapters); None: no values.
    reference
        a frozen model; None: the adapter `reference`, or no adapter at all.
    """

    def __init__(
        self, model: PreTrainedModel, *, critic: nn.Module | Critic = "shared", reference: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.adapters = hasattr(model, "peft_config")
        width = self.causal.config.get_text_config().hidden_size
        self.critic = critic if isinstance(critic, nn.Module) else None
        self.critic_adapter = critic == "separate" and self.adapters
        self.value_head = None if critic == "none" else nn.Linear(width, 1)
        if self.value_head is not None:  # values start at 0, so that a trunk shared with the policy is not torn at first
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        self._reference = (reference,)  # in a tuple: neither trained, nor saved, nor synchronised
        for module in (model, self.critic, reference):
            if module is not None:
                without_dropout(module)
        if reference is not None:
            reference.requires_grad_(False)

    @property
    def causal(self) -> PreTrainedModel:
        """The language model below the adapters."""
        return self.model.get_base_model() if self.adapters else self.model

    @property
    def head(self) -> nn.Linear:
        """The policy's output layer."""
        return self.causal.get_output_embeddings()

    @property
    def reference_head(self) -> nn.Linear:
        """The reference's output layer."""
        return self.head if self._reference[0] is None else self._reference[0].get_output_embeddings()

    def hidden(self, ids: Tensor) -> Tensor:
        """The policy's last hidden states, (B, S) -> (B, S, D)."""
        with self.use(POLICY):
            return run_trunk(self.causal, ids)

    def critic_hidden(self, ids: Tensor, policy_hidden: Tensor) -> Tensor:
        """What the value head reads, (B, S) -> (B, S, D): the policy's own states where the trunk is shared."""
        if self.critic is not None:
            return self.critic(input_ids=ids, use_cache=False).last_hidden_state
        if self.critic_adapter:
            with self.use(CRITIC):
                return run_trunk(self.causal, ids)
        return policy_hidden

    def value(self, hidden: Tensor) -> Tensor:
        """Value of what has been read so far, in float32, (N, D) -> (N,)."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.value_head(hidden.float()).squeeze(-1)

    def reference_hidden(self, ids: Tensor) -> Tensor:
        """The reference's last hidden states, (B, S) -> (B, S, D), without gradient."""
        with torch.no_grad():
            if self._reference[0] is not None:
                return run_trunk(self._reference[0], ids)
            with self.use(REFERENCE if REFERENCE in self.model.peft_config else None):
                return run_trunk(self.causal, ids)

    def use(self, adapter: str | None) -> contextmanager:
        """Within: this adapter alone, None: no adapter. Without adapters it does nothing."""
        return active_adapter(self.model, adapter if self.adapters else None, switch=self.adapters)

    def move_reference(self, device: torch.device) -> None:
        """Take the frozen copy along; it is no sub-module."""
        if self._reference[0] is not None:
            self._reference[0].to(device)

    def critic_parameters(self) -> list[nn.Parameter]:
        """What only the critic trains."""
        marked = f".{CRITIC}."
        return [p for n, p in self.named_parameters() if n.startswith(("value_head.", "critic.")) or marked in n]

    def save_policy(self, folder: str, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Write the policy in Hugging Face's format: the adapter alone, or the whole model."""
        if self.adapters:
            from pathlib import Path
            from tempfile import TemporaryDirectory

            with TemporaryDirectory() as temporary:  # PEFT puts a named adapter into a folder of its name
                self.model.save_pretrained(temporary, selected_adapters=[POLICY])
                for file in (Path(temporary) / POLICY).iterdir():
                    (Path(folder) / file.name).write_bytes(file.read_bytes())
        else:
            self.model.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)

    def save_merged(self, folder: str, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Write base weights with the policy's adapter added, as a plain model."""
        from peft import PeftModel

        assert self.adapters
        model = copy.deepcopy(self.model)
        assert isinstance(model, PeftModel)
        model.set_adapter(POLICY)
        model.merge_and_unload(adapter_names=[POLICY]).save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


def run_trunk(causal: PreTrainedModel, ids: Tensor) -> Tensor:
    """Last hidden states before the output layer, (B, S) right-padded -> (B, S, D)."""
    trunk = getattr(causal, causal.base_model_prefix)
    return trunk(input_ids=ids, use_cache=False).last_hidden_state


@contextmanager
def active_adapter(model: nn.Module, adapter: str | None, switch: bool = True) -> Iterator[None]:
    """Within: one adapter of all LoRA layers, or none. Unlike PEFT's own switches it leaves `requires_grad` alone."""
    if not switch:
        yield
        return
    layers = _adapter_layers(model)
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    for layer in layers:
        layer._active_adapter = [adapter] if adapter is not None else layer._active_adapter
        layer._disable_adapters = adapter is None
    try:
        yield
    finally:
        for layer, (active, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled


def _adapter_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that carry adapters; found once a model, for walking the tree takes longer than a small forward pass."""
    found = getattr(model, "_alignlab_adapter_layers", None)
    if found is None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        found = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
        object.__setattr__(model, "_alignlab_adapter_layers", found)
    return found


def without_dropout(module: nn.Module) -> None:
    """Set every dropout to 0, LoRA's too: the ratio must be 1 before the first step."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    config = getattr(module, "config", None)
    for name in ("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout"):
        for part in [config, *module.modules()]:
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)


def load_actor_critic(
    path: str,
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    quantization: Literal["int8", "nf4"] | None = None,
    peft: LoraConfig | None = None,
    critic: Critic = "shared",
    reference: bool = True,
    gradient_checkpointing: bool = False,
) -> tuple[ActorCritic, PreTrainedTokenizerBase]:
    """Load the supervised model at `path` as policy, with critic and reference.

    With `peft` the policy is a LoRA adapter. A path that is itself an adapter becomes the frozen adapter `reference` and the policy starts as a copy
    of it, unless `peft` is None: then it is merged and fully trained. Raises ValueError naming the key for what cannot be.
    """
    tokenizer = load_tokenizer(path)
    base, adapter = resolve_model(path)
    if adapter is not None and peft is None:
        model = load_language_model(path, dtype=dtype, quantization=quantization).merge_and_unload()
    else:
        model = load_language_model(base, dtype=dtype, quantization=quantization)
    if quantization is not None and peft is None:
        raise ValueError(f"model.net.quantization={quantization} needs adapters: choose model.net.peft")
    frozen, own_critic = None, critic
    if peft is not None:
        model = _with_adapters(model, peft, adapter, critic)
    else:
        frozen = copy.deepcopy(model) if reference else None
        if critic == "separate":
            own_critic = copy.deepcopy(getattr(model, model.base_model_prefix))
            own_critic.requires_grad_(True)
        model.requires_grad_(True)
    if gradient_checkpointing:
        causal = model.get_base_model() if peft is not None else model
        causal.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        causal.enable_input_require_grads()
    return ActorCritic(model, critic=own_critic, reference=frozen), tokenizer


def _with_adapters(model: PreTrainedModel, peft: LoraConfig, adapter: str | None, critic: Critic) -> PreTrainedModel:
    """Adapters `policy`, `critic` where asked for, and `reference` where the supervised model is an adapter itself."""
    from peft import PeftModel, get_peft_model

    if adapter is not None:  # shape and targets are those of the adapter that goes on
        model = PeftModel.from_pretrained(model, adapter, adapter_name=REFERENCE)
        model.load_adapter(adapter, adapter_name=POLICY)
        config = model.peft_config[POLICY]
    else:
        config = copy.deepcopy(peft)
        model = get_peft_model(model, config, adapter_name=POLICY)
    if critic == "separate":
        model.add_adapter(CRITIC, copy.deepcopy(peft))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(f".{kind}." in name for kind in (POLICY, CRITIC)))
    for layer in _adapter_layers(model):
        layer._active_adapter = [POLICY]
    return model
