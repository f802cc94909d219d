"""Decoders as transformers' GPT-2, BLOOM, Llama and Mixtral, and back: weights under other names, equal logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from alignlab.models.language.decoder.names import folded, read, written
from alignlab.models.language.decoder.net import Decoder
from alignlab.models.language.decoder.settings import GATED, DecoderSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_HF_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}
_OURS = {name: ours for ours, name in _HF_ACTIVATIONS.items()} | {"gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}
# What a family fixes; `None` in a tuple stands for any.
_FAMILIES: dict[str, dict[str, tuple]] = {
    "gpt2": {"norm": ("layer",), "position": ("learned",), "bias": (True,), "embedding_norm": (False,)},
    "bloom": {
        "norm": ("layer",),
        "position": ("alibi",),
        "bias": (True,),
        "embedding_norm": (True,),
        "activation": ("gelu_tanh",),
    },
    "llama": {"norm": ("rms",), "position": ("rope",), "activation": tuple(GATED), "embedding_norm": (False,)},
    "mixtral": {
        "norm": ("rms",),
        "position": ("rope",),
        "activation": tuple(GATED),
        "embedding_norm": (False,),
        "bias": (False,),
    },
}
_ALL: dict[str, tuple] = {"norm_place": ("pre",), "mask": ("causal",)}
_EXTRA: dict[str, Callable[[DecoderSettings], str | None]] = {
    "gpt2": lambda s: None if not s.gated and s.kv_heads == s.heads else "a gate or shared key heads",
    "bloom": lambda s: (
        None
        if s.kv_heads == s.heads and s.mlp_width == 4 * s.width
        else "shared key heads, or an mlp_width that isn't 4 width"
    ),
}


def lacks(settings: DecoderSettings) -> str | None:
    """Why transformers has no such model, in one line; None if it has."""
    family, other = _nearest(settings)
    if not other:
        return None
    return f"no model of transformers is told by these settings; the nearest, {family}, has no {', no '.join(other)}"


def as_transformers(net: Decoder) -> PreTrainedModel:
    """A model of transformers with the decoder's weights.

    Raises:
        ValueError: there is no such model.
    """
    if reason := lacks(net.config):
        raise ValueError(reason)
    family = _nearest(net.config)[0]
    model = _new(family, net.config, net.words)
    ours = folded(net.config, {name: value.detach() for name, value in net.state_dict().items()})
    state = written(family, net.config, ours)
    missing, unexpected = model.load_state_dict(state, strict=False)
    of_head = {"lm_head.weight"} if net.config.tie_embeddings else set()
    assert not unexpected and set(missing) <= of_head, (missing, unexpected)
    model.tie_weights()
    return model.to(net.embedding.weight.dtype)


def from_transformers(model: PreTrainedModel) -> Decoder:
    """A decoder with the weights of a GPT-2, BLOOM, Llama or Mixtral.

    Raises:
        ValueError: another family, or a setting of it that isn't built here.
    """
    config = model.config
    if config.model_type not in _FAMILIES:
        raise ValueError(
            f"model type {config.model_type} is not among those of our decoder ({', '.join(_FAMILIES)}); use "
            "model/net=language_pretrained"
        )
    settings = _settings(config)
    if settings.position == "rope" and config.rope_parameters["rope_type"] != "default":
        raise ValueError(
            f"rope_type={config.rope_parameters['rope_type']} isn't built here; use model/net=language_pretrained"
        )
    net = Decoder(settings)
    state = read(config.model_type, settings, {name: value.detach() for name, value in model.state_dict().items()})
    net.load_state_dict(state)
    return net.to(next(model.parameters()).dtype)


def _nearest(settings: DecoderSettings) -> tuple[str, list[str]]:
    """The family that the fewest settings keep a decoder from, and these."""
    best: tuple[str, list[str]] | None = None
    for family, fixed in _FAMILIES.items():
        other = [
            f"{name}={getattr(settings, name)}"
            for name, values in (_ALL | fixed).items()
            if getattr(settings, name) not in values
        ]
        if bool(settings.experts) != (family == "mixtral"):
            other.append("mixture of experts" if settings.experts else "single MLP")
        if family in _EXTRA and (extra := _EXTRA[family](settings)):
            other.append(extra)
        if best is None or len(other) < len(best[1]):
            best = family, other
    return best


def _new(family: str, s: DecoderSettings, words: Any) -> PreTrainedModel:
    import transformers

    ends = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    if words is not None:
        ends = {"pad_token_id": words.pad_id, "bos_token_id": words.bos_id, "eos_token_id": words.eos_id}
    shared = {"vocab_size": s.vocabulary, "tie_word_embeddings": s.tie_embeddings, **ends}
    if family == "gpt2":
        config = transformers.GPT2Config(
            n_positions=s.context_length,
            n_embd=s.width,
            n_layer=s.depth,
            n_head=s.heads,
            n_inner=s.mlp_width,
            activation_function=_HF_ACTIVATIONS[s.activation],
            layer_norm_epsilon=s.eps,
            resid_pdrop=s.dropout,
            embd_pdrop=s.dropout,
            attn_pdrop=0.0,
            **shared,
        )
        return transformers.GPT2LMHeadModel(config)
    if family == "bloom":
        config = transformers.BloomConfig(
            hidden_size=s.width,
            n_layer=s.depth,
            n_head=s.heads,
            layer_norm_epsilon=s.eps,
            seq_length=s.context_length,
            **shared,
        )
        return transformers.BloomForCausalLM(config)
    of_llama = {
        "hidden_size": s.width,
        "intermediate_size": s.mlp_width,
        "num_hidden_layers": s.depth,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "max_position_embeddings": s.context_length,
        "rms_norm_eps": s.eps,
        "hidden_act": _HF_ACTIVATIONS[s.gate],
        "rope_parameters": {"rope_type": "default", "rope_theta": s.rope_base},
        **shared,
    }
    if family == "llama":
        config = transformers.LlamaConfig(attention_bias=s.bias, mlp_bias=s.bias, **of_llama)
        return transformers.LlamaForCausalLM(config)
    of_mixtral = {"num_local_experts": s.experts, "num_experts_per_tok": s.experts_per_token, "sliding_window": None}
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**of_mixtral, **of_llama))


def _settings(config: PretrainedConfig) -> DecoderSettings:
    """A decoder's settings by a config of transformers."""
    kind = config.model_type
    width, heads = config.hidden_size, config.num_attention_heads
    layer_norm = kind in ("gpt2", "bloom")
    if kind == "bloom":
        activation, bias, inner = "gelu_tanh", True, 4 * width
        unusual = config.apply_residual_connection_post_layernorm and "apply_residual_connection_post_layernorm=true"
    elif kind == "gpt2":
        activation, bias, inner = _OURS.get(config.activation_function), True, config.n_inner or 4 * width
        odd = config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights
        unusual = odd and "other than the usual attention scale"
    else:
        activation = {"silu": "swiglu", "gelu": "geglu"}.get(config.hidden_act)
        bias, inner = bool(getattr(config, "attention_bias", False)), config.intermediate_size
        unusual = bias != bool(getattr(config, "mlp_bias", False)) and "biases in some layers alone"
        unusual = unusual or ((getattr(config, "head_dim", None) or width // heads) != width // heads and "head_dim")
        unusual = unusual or (getattr(config, "sliding_window", None) and "a sliding window")
    if activation is None or unusual:
        raise ValueError(
            f"{kind} with {unusual or 'its activation'} isn't built here; use model/net=language_pretrained"
        )
    mixture = kind == "mixtral"
    return DecoderSettings(
        vocabulary=config.vocab_size,
        width=width,
        depth=config.num_hidden_layers,
        heads=heads,
        kv_heads=heads if layer_norm else config.num_key_value_heads or heads,
        mlp_width=inner,
        context_length=getattr(config, "max_position_embeddings", None) or getattr(config, "seq_length", 2048),
        norm="layer" if layer_norm else "rms",
        norm_place="pre",
        eps=config.layer_norm_epsilon if layer_norm else config.rms_norm_eps,
        activation=activation,
        position={"gpt2": "learned", "bloom": "alibi"}.get(kind, "rope"),
        rope_base=10000.0 if layer_norm else config.rope_parameters["rope_theta"],
        mask="causal",
        bias=bias,
        tie_embeddings=bool(config.tie_word_embeddings),
        embedding_norm=kind == "bloom",
        dropout=0.0,
        experts=config.num_local_experts if mixture else 0,
        experts_per_token=config.num_experts_per_tok if mixture else 2,
    )
