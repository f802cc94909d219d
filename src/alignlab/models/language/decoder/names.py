"""Where GPT-2, BLOOM, Llama and Mixtral keep the tensors of a decoder, in transformers' files, and in which form.

Legend: W width, H heads, K key heads, D head width, I inner width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignlab.models.language.decoder.settings import DecoderSettings

State = dict[str, Tensor]

# Parts of a layer by their names there; `qkv` and `up` are matrices of their own only in some families.
_GPT2 = {"norm1": "ln_1", "norm2": "ln_2", "qkv": "attn.c_attn", "out": "attn.c_proj"}
_GPT2 |= {"mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
_BLOOM = {"norm1": "input_layernorm", "norm2": "post_attention_layernorm", "qkv": "self_attention.query_key_value"}
_BLOOM |= {"out": "self_attention.dense", "mlp.up": "mlp.dense_h_to_4h", "mlp.down": "mlp.dense_4h_to_h"}
_LLAMA = {"norm1": "input_layernorm", "norm2": "post_attention_layernorm", "out": "self_attn.o_proj"}
_LLAMA |= {"mlp.down": "mlp.down_proj"}
_MIXTRAL = {key: name for key, name in _LLAMA.items() if key != "mlp.down"} | {"mlp.router": "mlp.gate"}
_TOPS = {
    "gpt2": {"embedding": "wte", "position": "wpe", "final_norm": "ln_f"},
    "bloom": {
        "embedding": "word_embeddings",
        "embedding_norm": "word_embeddings_layernorm",
        "final_norm": "ln_f",
    },
    "llama": {"embedding": "embed_tokens", "final_norm": "norm"},
}
_TOPS["mixtral"] = _TOPS["llama"]
_PARTS = {"gpt2": _GPT2, "bloom": _BLOOM, "llama": _LLAMA, "mixtral": _MIXTRAL}
_PLACES = {"gpt2": ("transformer.", "h."), "bloom": ("transformer.", "h.")}


def _pairs(family: str, s: DecoderSettings) -> dict[str, str]:
    """Names of tensors here -> there, of those that are the same tensor but for a transposition or an order of rows."""
    prefix, layers = _PLACES.get(family, ("model.", "layers."))
    pairs = {ours: prefix + theirs for ours, theirs in _TOPS[family].items()}
    for i in range(s.depth):
        pairs |= {f"layers.{i}.{o}": f"{prefix}{layers}{i}.{t}" for o, t in _PARTS[family].items()}
    both = {f"{o}.{kind}": f"{t}.{kind}" for o, t in pairs.items() for kind in ("weight", "bias")}
    return both | ({} if s.tie_embeddings else {"head.weight": "lm_head.weight"})


def written(family: str, s: DecoderSettings, ours: State) -> State:
    """A decoder's tensors as the family's."""
    theirs = {t: _turned(family, s, o, ours[o], False) for o, t in _pairs(family, s).items() if o in ours}
    for i in range(s.depth if family in ("llama", "mixtral") else 0):
        theirs |= _split(s, i, ours, family == "mixtral")
    return theirs


def folded(s: DecoderSettings, state: State) -> State:
    """A decoder's tensors with what `base_width` multiplies in between put into them: the same logits without it."""
    if s.base_width is None:
        return state
    queries, scaled = s.heads * s.head_width, dict(state)
    for name, value in state.items():
        if ".qkv." in name:
            scaled[name] = torch.cat([value[:queries] * s.query_scale, value[queries:]])
        elif name.startswith("final_norm.") or name.endswith("router.weight"):
            scaled[name] = value / s.width_ratio
    return scaled


def read(family: str, s: DecoderSettings, theirs: State) -> State:
    """A family's tensors as a decoder's."""
    ours = {o: _turned(family, s, o, theirs[t], True) for o, t in _pairs(family, s).items() if t in theirs}
    for i in range(s.depth if family in ("llama", "mixtral") else 0):
        ours |= _joined(s, i, theirs, family == "mixtral")
    return ours if not s.tie_embeddings else ours | {"head.weight": ours["embedding.weight"]}


def _turned(family: str, s: DecoderSettings, name: str, value: Tensor, to_ours: bool) -> Tensor:
    """A tensor in the other's form: GPT-2 keeps matrices (in, out), BLOOM [head][q, k, v] instead of [q; k; v]."""
    linear = name.startswith("layers.") and ".norm" not in name
    if family == "gpt2" and linear and value.ndim == 2:
        return value.T.contiguous()
    if family == "bloom" and ".qkv." in name:
        sizes = (s.heads, 3) if to_ours else (3, s.heads)
        return value.view(*sizes, s.head_width, *value.shape[1:]).transpose(0, 1).reshape(value.shape)
    return value


def _split(s: DecoderSettings, layer: int, ours: State, mixture: bool) -> State:
    """Queries, keys and values, gate and up as matrices of their own; experts as they are."""
    there, here, parts = f"model.layers.{layer}.", f"layers.{layer}.", {}
    sizes = [s.width, s.kv_heads * s.head_width, s.kv_heads * s.head_width]
    for kind in ("weight", "bias") if s.bias else ("weight",):
        for letter, part in zip("qkv", ours[f"{here}qkv.{kind}"].split(sizes), strict=True):
            parts[f"{there}self_attn.{letter}_proj.{kind}"] = part
        if not mixture:
            gate, up = ours[f"{here}mlp.up.{kind}"].chunk(2)
            parts |= {f"{there}mlp.gate_proj.{kind}": gate, f"{there}mlp.up_proj.{kind}": up}
    if mixture:
        parts[f"{there}mlp.experts.gate_up_proj"] = ours[f"{here}mlp.up"]
        parts[f"{there}mlp.experts.down_proj"] = ours[f"{here}mlp.down"]
    return parts


def _joined(s: DecoderSettings, layer: int, theirs: State, mixture: bool) -> State:
    there, here, parts = f"model.layers.{layer}.", f"layers.{layer}.", {}
    for kind in ("weight", "bias") if s.bias else ("weight",):
        parts[f"{here}qkv.{kind}"] = torch.cat([theirs[f"{there}self_attn.{x}_proj.{kind}"] for x in "qkv"])
        if not mixture:
            parts[f"{here}mlp.up.{kind}"] = torch.cat([theirs[f"{there}mlp.{x}_proj.{kind}"] for x in ("gate", "up")])
    if mixture:
        parts[f"{here}mlp.up"] = theirs[f"{there}mlp.experts.gate_up_proj"]
        parts[f"{here}mlp.down"] = theirs[f"{there}mlp.experts.down_proj"]
    return parts
