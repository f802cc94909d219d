"""Exact sizes of causal language models: counted on the meta device, where no weight exists.

Legend: h width, f width of the MLP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Architectures by name, so that a plan needs no network: what differs from the defaults of the configuration class.
KNOWN: dict[str, tuple[str, dict]] = {
    "gpt-neox-20b": ("gpt_neox", {}),
    "bloom-7b1": ("bloom", {"hidden_size": 4096, "n_layer": 30, "n_head": 32, "vocab_size": 250880}),
    "llama-2-7b": ("llama", {}),
    "llama-3-8b": (
        "llama",
        {"vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8, "num_hidden_layers": 32},
    ),
    "smollm2-135m": (
        "llama",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
        },
    ),
}


@dataclass(frozen=True)
class Linear:
    """One linear layer of the first block."""

    name: str
    fan_in: int
    fan_out: int


@dataclass(frozen=True)
class Sizes:
    """What a plan needs to know about a model; parameters are counted, not estimated."""

    name: str
    total: int  # parameters, tied ones once
    linear: int  # weights of the linear layers inside blocks: what quantisation packs
    layers: int
    width: int
    mlp_width: int
    kv_width: int  # of keys (and of values) of a token in a layer
    vocabulary: int
    gated: bool  # whether the MLP has a gate
    block: tuple[Linear, ...]  # linear layers of a block

    @property
    def rest(self) -> int:
        """Embeddings, head, norms, biases."""
        return self.total - self.linear

    @property
    def mean_fan_in(self) -> float:
        return self.linear / sum(layer.fan_out for layer in self.block) / self.layers

    @property
    def largest_linear(self) -> int:
        """Weights of the largest linear layer of a block."""
        return max(layer.fan_in * layer.fan_out for layer in self.block)

    def targets(self, names: Sequence[str] | str) -> list[Linear]:
        """Linear layers of a block that an adapter goes to. Raises ValueError if no layer has one of these names."""
        if names == "all-linear":
            return list(self.block)
        wanted = [names] if isinstance(names, str) else list(names)
        chosen = [layer for layer in self.block if layer.name in wanted]
        missing = set(wanted) - {layer.name for layer in self.block}
        if missing:
            there = ", ".join(layer.name for layer in self.block)
            raise ValueError(f"--lora-targets {', '.join(sorted(missing))}: no such linear layer; there are {there}")
        return chosen

    def lora(self, rank: int, names: Sequence[str] | str) -> int:
        """Parameters of an adapter: sum of rank (in + out)."""
        return self.layers * sum(rank * (layer.fan_in + layer.fan_out) for layer in self.targets(names))

    def linear_inputs(self, names: Sequence[str] | str) -> list[int]:
        """Widths of the distinct inputs of these layers: queries, keys and values share one, so do gate and up."""
        shared = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
        return list({shared.get(layer.name, layer.name): layer.fan_in for layer in self.targets(names)}.values())


def sizes(model: str) -> Sizes:
    """Sizes of a known architecture, a folder with config.json, a run directory, or a hub id.

    Raises:
        ValueError: nothing of that name can be read.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from alignlab.models.language.paths import resolve_model

    if model in KNOWN:
        kind, settings = KNOWN[model]
        config = AutoConfig.for_model(kind, **settings)
    else:
        base, _ = resolve_model(model)
        if base == model and not Path(base).exists() and "/" not in base:
            raise ValueError(f"{model} is neither a folder nor one of {', '.join(KNOWN)}")
        try:
            config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"{model}: {str(error).strip().splitlines()[0]}") from error
    with torch.device("meta"):
        net = AutoModelForCausalLM.from_config(config)
    return _counted(model, net)


def _counted(name: str, net: object) -> Sizes:
    import torch
    from torch import nn

    config = net.config
    blocks = next(m for m in net.modules() if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers)
    linears = [(key, m) for key, m in blocks[0].named_modules() if isinstance(m, nn.Linear)]
    block = tuple(Linear(key.rpartition(".")[2], m.in_features, m.out_features) for key, m in linears)
    if not block:
        raise ValueError(f"{name}: its layers are not made of torch's Linear; such models can't be planned")
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    with torch.no_grad():
        total = sum(p.numel() for p in net.parameters())
    linear = sum(m.weight.numel() for m in blocks.modules() if isinstance(m, nn.Linear))
    return Sizes(
        name=name,
        total=total,
        linear=linear,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        mlp_width=max(
            max(layer.fan_in, layer.fan_out) for layer in block if layer.name not in ("query_key_value", "c_attn")
        ),
        kv_width=kv_heads * head_width,
        vocabulary=config.vocab_size,
        gated=any(layer.name == "gate_proj" for layer in block),
        block=block,
    )
