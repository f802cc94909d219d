"""Where BLOOM, GPT-2, GPT-NeoX and the Llama family keep their weights, and how each of them differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from alignlab.inference.native.architecture import Architecture

if TYPE_CHECKING:
    from transformers import PretrainedConfig

SUPPORTED = "bloom, gpt2, gpt_neox, llama, mistral, qwen2"


def describe(config: PretrainedConfig) -> Architecture:
    """Architecture of a transformers config; a `ValueError` names what is not known here."""
    kinds = {"bloom": _bloom, "gpt2": _gpt2, "gpt_neox": _gpt_neox} | dict.fromkeys(
        ("llama", "mistral", "qwen2"), _llama
    )
    kind = getattr(config, "model_type", None)
    if kind not in kinds:
        raise ValueError(
            f"model type {kind} is not among those of our own decoder ({SUPPORTED}); use backend=transformers"
        )
    return kinds[kind](config)


def _activation(name: str) -> Literal["gelu", "gelu_tanh", "silu", "relu"]:
    known = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
    known |= {"silu": "silu", "swish": "silu", "relu": "relu"}
    if name not in known:
        raise ValueError(f"activation {name} is not among {', '.join(known)}; use backend=transformers")
    return known[name]


def _rotary(config: PretrainedConfig, module: type) -> tuple[Tensor, float]:
    """Inverse frequencies as transformers computes them; kinds that change with the length are refused."""
    kind = config.rope_parameters["rope_type"]
    if kind in ("dynamic", "longrope"):
        raise ValueError(f"rope_type={kind} changes with the length of the prompt; use backend=transformers")
    embedding = module(config)
    return embedding.inv_freq, embedding.attention_scaling


def _sizes(layers: int, width: int, heads: int, inner: int | None, vocabulary: int) -> dict[str, int]:
    return {
        "layers": layers,
        "width": width,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": width // heads,
        "inner": inner or 4 * width,
        "vocabulary": vocabulary,
    }


def _bloom(config: PretrainedConfig) -> Architecture:
    layer = "h.{i}."
    return Architecture(
        **_sizes(config.n_layer, config.hidden_size, config.n_head, None, config.vocab_size),
        max_positions=None,
        eps=config.layer_norm_epsilon,
        prefix="transformer.",
        names={
            "embedding": "word_embeddings",
            "embedding_norm": "word_embeddings_layernorm",
            "norm1": layer + "input_layernorm",
            "norm2": layer + "post_attention_layernorm",
            "out": layer + "self_attention.dense",
            "down": layer + "mlp.dense_4h_to_h",
            "final_norm": "ln_f",
            "head": "lm_head",
        },
        qkv=(layer + "self_attention.query_key_value",),
        up=(layer + "mlp.dense_h_to_4h",),
        qkv_order="per_head",
        activation="gelu_tanh",
        post_norm_residual=config.apply_residual_connection_post_layernorm,
        alibi=True,
    )


def _gpt2(config: PretrainedConfig) -> Architecture:
    if config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights:
        raise ValueError("GPT-2 with other than the usual attention scale: use backend=transformers")
    layer = "h.{i}."
    return Architecture(
        **_sizes(config.n_layer, config.n_embd, config.n_head, config.n_inner, config.vocab_size),
        max_positions=config.n_positions,
        eps=config.layer_norm_epsilon,
        prefix="transformer.",
        names={
            "embedding": "wte",
            "positions": "wpe",
            "norm1": layer + "ln_1",
            "norm2": layer + "ln_2",
            "out": layer + "attn.c_proj",
            "down": layer + "mlp.c_proj",
            "final_norm": "ln_f",
            "head": "lm_head",
        },
        qkv=(layer + "attn.c_attn",),
        up=(layer + "mlp.c_fc",),
        transposed=True,
        activation=_activation(config.activation_function),
    )


def _gpt_neox(config: PretrainedConfig) -> Architecture:
    from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding

    layer = "layers.{i}."
    sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size)
    return Architecture(
        **_sizes(config.num_hidden_layers, *sizes, config.vocab_size),
        max_positions=config.max_position_embeddings,
        eps=config.layer_norm_eps,
        prefix="gpt_neox.",
        names={
            "embedding": "embed_in",
            "norm1": layer + "input_layernorm",
            "norm2": layer + "post_attention_layernorm",
            "out": layer + "attention.dense",
            "down": layer + "mlp.dense_4h_to_h",
            "final_norm": "final_layer_norm",
            "head": "embed_out",
        },
        qkv=(layer + "attention.query_key_value",),
        up=(layer + "mlp.dense_h_to_4h",),
        qkv_order="per_head",
        activation=_activation(config.hidden_act),
        parallel=config.use_parallel_residual,
        rotary=_rotary(config, GPTNeoXRotaryEmbedding),
    )


def _llama(config: PretrainedConfig) -> Architecture:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise ValueError(
            f"sliding_window={config.sliding_window} is not built into our own decoder; use backend=transformers"
        )
    layer, heads = "layers.{i}.", config.num_attention_heads
    sizes = _sizes(config.num_hidden_layers, config.hidden_size, heads, config.intermediate_size, config.vocab_size)
    sizes["kv_heads"] = config.num_key_value_heads or heads
    sizes["head_dim"] = getattr(config, "head_dim", None) or sizes["head_dim"]
    return Architecture(
        **sizes,
        max_positions=config.max_position_embeddings,
        eps=config.rms_norm_eps,
        prefix="model.",
        names={
            "embedding": "embed_tokens",
            "norm1": layer + "input_layernorm",
            "norm2": layer + "post_attention_layernorm",
            "out": layer + "self_attn.o_proj",
            "down": layer + "mlp.down_proj",
            "final_norm": "norm",
            "head": "lm_head",
        },
        qkv=tuple(f"{layer}self_attn.{x}_proj" for x in "qkv"),
        up=(layer + "mlp.gate_proj", layer + "mlp.up_proj"),
        rms_norm=True,
        activation=_activation(config.hidden_act),
        rotary=_rotary(config, LlamaRotaryEmbedding),
    )
