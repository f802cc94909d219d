"""Causal language models and their tokenizers: from a hub id, a folder or one of our run directories, or new and small.

Legend: B rows, T tokens, W width, V vocabulary.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alignlab.models.language.masks import one_text_a_row, padding_mask
from alignlab.models.language.packing import packed_mask
from alignlab.models.language.pretrained_files import from_folder
from alignlab.types.language import LanguageVocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Dtype = Literal["float32", "bfloat16"]
Quantization = Literal["int8", "llm_int8", "nf4"]
PACKED = {"Linear8bitLt": "llm_int8", "Linear4bit": "nf4"}  # bitsandbytes' layers, which peft's on top are named after


def resolve_model(path: str) -> tuple[str, str | None]:
    """Base model and adapter folder (or None) behind a path: a run directory's `export/`, the newest such in a folder of runs, a folder, or a hub id.

    A path that does not exist is taken for a hub id if it looks like `name` or `owner/name`; anything else is a `ValueError`.
    """
    folder = export_folder(path)
    if (folder / "adapter_config.json").is_file():
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base:
            raise ValueError(f"model={path}: {folder / 'adapter_config.json'} names no base_model_name_or_path")
        return base, str(folder)
    if (folder / "config.json").is_file() or (folder.is_dir() and list(folder.glob("*.gguf"))):
        return str(folder), None
    if folder.exists() and folder.suffix != ".gguf":
        raise ValueError(f"model={path}: neither config.json nor adapter_config.json is there, nor an export/ with one")
    if not folder.exists() and (path.startswith((".", "/", "~")) or path.count("/") > 1 or path.startswith("outputs/")):
        raise ValueError(f"model={path}: there is no such folder")
    return path, None


def export_folder(path: str | Path) -> Path:
    """`export/` of a run directory, or of the newest run in `outputs/<run_name>`; any other path as it is.

    `package:name/folder` is a folder inside an installed Python package, which is not imported. Raises ValueError if it isn't installed.
    """
    if str(path).startswith("package:"):
        name, _, inside = str(path).removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"model={path}: the package {name} is not installed (extras: minilm)")
        return Path(spec.submodule_search_locations[0]) / inside
    folder = Path(path).expanduser()
    if (folder / "export").is_dir():
        return folder / "export"
    runs = sorted(folder.glob("*/export")) if folder.is_dir() and not (folder / "config.json").is_file() else []
    return runs[-1] if runs else folder


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Tokenizer of a model: the adapter's own if it has one, else the base model's. Pads with EOS if it has no padding token."""
    from transformers import AutoTokenizer

    base, adapter = resolve_model(path)
    own = adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file()
    folder, gguf = (adapter, {}) if own else _gguf(base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **gguf)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"model={path}: no tokenizer could be read from {folder} ({reason})") from error
    if tokenizer.eos_token is None and tokenizer.sep_token is not None:  # BERT's [CLS] text [SEP]
        tokenizer.bos_token, tokenizer.eos_token = tokenizer.cls_token, tokenizer.sep_token
    if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_language_model(
    path: str,
    dtype: Dtype = "float32",
    quantization: Quantization | None = None,
    device: str = "cpu",
) -> PreTrainedModel:
    """A causal language model in evaluation mode; behind an adapter's folder, the base with the adapter on top.

    quantization: of the linear layers of the base's blocks; "int8" our own (weights alone), "llm_int8" and "nf4" by bitsandbytes.
    Raises ValueError, in one line, for what can't be read or isn't installed.
    """
    import torch
    from transformers import AutoModelForCausalLM

    base, adapter = resolve_model(path)
    folder, gguf = _gguf(base)
    extra: dict = dict(gguf)
    if gguf:
        from transformers import GgufConfig

        extra["quantization_config"] = GgufConfig(dequantize=True)
        if quantization is not None:
            raise ValueError(f"model={path}: a GGUF file is dequantised when it is read; use quantization=null")
    elif quantization not in (None, "int8"):
        extra |= {"quantization_config": _quantization_config(quantization, dtype), "device_map": device}
    try:
        model = from_folder(AutoModelForCausalLM, folder, dtype=getattr(torch, dtype), **extra)
    except ValueError as error:
        raise ValueError(f"model={path}: no causal language model could be read from {folder} ({error})") from error
    if quantization == "int8":
        from alignlab.models.language.int8_linear import quantize_blocks

        quantize_blocks(model)
    if quantization is not None:
        _settle(model)
    if adapter is not None:
        from alignlab.models.language.lora import put_on

        model = put_on(model, adapter)
    return model.eval() if "device_map" in extra else model.eval().to(device)


def packed(model: nn.Module) -> Literal["llm_int8", "nf4"] | None:
    """How bitsandbytes quantised a model, adapters on top or not; None where it didn't."""
    return next((kind for module in model.modules() if (kind := PACKED.get(type(module).__name__))), None)


def pretrained(
    path: str,
    dtype: Dtype = "float32",
    quantization: Quantization | None = None,
    gradient_checkpointing: bool = False,
    *,
    vocabulary: LanguageVocabulary,
) -> PreTrainedModel:
    """A model to train further: as `load_language_model`, with an adapter merged into it.

    A quantised base can't take an adapter in; then the adapter stays and is named "reference" (see `models/language/lora.py`).
    Raises ValueError if the tokenizer has more ids than the model.
    """
    model = load_language_model(path, dtype, quantization)
    if hasattr(model, "merge_and_unload"):
        from alignlab.models.language.lora import as_reference, merged

        if quantization is None:
            model = merged(model)
        else:
            model = as_reference(model, resolve_model(path)[1])
    rows = model.get_input_embeddings().weight.shape[0]
    if vocabulary.size > rows:
        raise ValueError(f"data.tokenizer has {vocabulary.size} ids, the model {path} only {rows}")
    if quantization is None:
        model.requires_grad_(True)
    if gradient_checkpointing:
        _checkpoint_activations(model)
    return model.train()


def llama(
    *,
    width: int = 256,
    depth: int = 4,
    heads: int = 4,
    mlp_width: int | None = None,
    context_length: int = 256,
    dropout: float = 0.0,
    tie_embeddings: bool = True,
    gradient_checkpointing: bool = False,
    vocabulary: LanguageVocabulary,
) -> PreTrainedModel:
    """A new Llama-like model (arXiv:2302.13971): RMSNorm, rotary positions, SwiGLU of `mlp_width` (None: 8/3 width, rounded up to 32)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if width % heads or (width // heads) % 2:
        raise ValueError(f"model.net.width={width} must be an even multiple of model.net.heads={heads}")
    config = LlamaConfig(
        vocab_size=vocabulary.size,
        hidden_size=width,
        intermediate_size=mlp_width or -(-width * 8 // 96) * 32,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context_length,
        tie_word_embeddings=tie_embeddings,
        pad_token_id=vocabulary.pad_id,
        bos_token_id=vocabulary.bos_id,
        eos_token_id=vocabulary.eos_id,
    )
    model = LlamaForCausalLM(config)
    if dropout:
        add_dropout(model, dropout)
    if gradient_checkpointing:
        _checkpoint_activations(model)
    return model


def encoder(
    *,
    width: int = 128,
    depth: int = 1,
    heads: int = 4,
    mlp_width: int = 256,
    context_length: int = 256,
    dropout: float = 0.4,
    attention_dropout: float = 0.1,
    token_dropout: float = 0.0,
    vocabulary: LanguageVocabulary,
) -> PreTrainedModel:
    """A new bidirectional encoder in BERT's form (arXiv:1810.04805). `token_dropout`: part of the tokens whose word vector is blanked in training."""
    from transformers import BertConfig, BertModel

    if width % heads:
        raise ValueError(f"model.net.width={width} must be a multiple of model.net.heads={heads}")
    config = BertConfig(
        vocab_size=vocabulary.size,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=mlp_width,
        max_position_embeddings=context_length,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=attention_dropout,
        pad_token_id=vocabulary.pad_id,
    )
    model = BertModel(config, add_pooling_layer=False)

    def blank(module: nn.Module, _: object, vectors: Tensor) -> Tensor:
        # (B, T, 1): a token's whole vector or nothing of it, unscaled, as if the word were unknown
        return vectors * (
            vectors.new_empty(*vectors.shape[:2], 1).bernoulli_(1 - token_dropout) if module.training else 1
        )

    if token_dropout:
        model.get_input_embeddings().register_forward_hook(blank)
    return model


def pretrained_encoder(path: str, *, vocabulary: LanguageVocabulary) -> PreTrainedModel:
    """A released encoder without its head, for reward models; `path` as in `resolve_model`, or `package:name/folder`.

    Raises ValueError if it can't be read or has fewer ids than the tokenizer.
    """
    from transformers import AutoModel

    folder, _ = resolve_model(path)
    try:
        model = from_folder(AutoModel, folder, trunk=True, dtype="float32")
    except ValueError as error:
        raise ValueError(f"model={path}: no encoder could be read from {folder} ({error})") from error
    if vocabulary.size > model.config.vocab_size:
        raise ValueError(f"data.tokenizer has {vocabulary.size} ids, the model {path} only {model.config.vocab_size}")
    if hasattr(model, "pooler"):
        model.pooler = None  # a head of BERT's that nothing here uses
    return model.train()


def add_dropout(model: nn.Module, probability: float) -> None:
    """Dropout behind the embeddings and each attention and MLP, in training mode, by hooks: weights and exports stay as they are."""
    from torch import nn

    def drop(module: nn.Module, _: object, output: object) -> object:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (nn.functional.dropout(output[0], probability), *output[1:])
        return nn.functional.dropout(output, probability)

    parts = [model.get_input_embeddings()]
    parts += [m for name, m in trunk_of(model).named_modules() if name.endswith((".self_attn", ".mlp"))]
    for part in parts:
        part.register_forward_hook(drop)


def trunk_of(model: nn.Module) -> nn.Module:
    """What gives hidden states: the model without its head; adapters stay in it."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return model.base_model if hasattr(model, "base_model") else model


def hidden_states(
    model: nn.Module,
    ids: Tensor,
    mask: Tensor | None = None,
    *,
    document: Tensor | None = None,
    position: Tensor | None = None,
) -> Tensor:
    """Last hidden states (B, T, W) after the final norm.

    mask (B, T) True = token; it may be left out for rows padded on the right: causal attention never looks there. With `document` (B, T), rows hold
    several texts, which don't see each other, and `position` (B, T) is counted from 0 in each; ValueError for models that can't keep them apart.
    """
    trunk, extra = trunk_of(model), {"position_ids": position} if position is not None else {}
    if document is not None:
        attention = packed_mask(trunk, document)
    else:  # places that are given can be had without the mask; some models count them by it
        attention = None if mask is None else padding_mask(trunk, mask) if position is not None else mask.long()
    with one_text_a_row():
        return trunk(ids, attention_mask=attention, use_cache=False, **extra).last_hidden_state


def head_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Hidden states (..., W) -> logits (..., V), with the scaling or capping that the architecture puts behind its head."""
    import torch

    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    head, config = model.get_output_embeddings(), model.config
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    if scale == 1.0 and cap is None:
        return head

    def logits(hidden: Tensor) -> Tensor:
        scaled = head(hidden) * scale
        return cap * torch.tanh(scaled / cap) if cap is not None else scaled

    return logits


def _checkpoint_activations(model: PreTrainedModel) -> None:
    """Recompute layers in the backward pass; transformers renamed the method in 5.23."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _quantization_config(quantization: Quantization, dtype: Dtype) -> object:
    """What `from_pretrained` takes. Raises ValueError naming the extra if the package is missing."""
    import torch

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"quantization={quantization} needs bitsandbytes: pip install 'alignlab[quantization]'")
    from transformers import BitsAndBytesConfig

    if quantization == "llm_int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
    )


def _settle(model: PreTrainedModel) -> None:
    """Lets go of the file that a quantised model was mapped from, which the embedding alone would keep in memory; keeps 4-bit weights out of checkpoints."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()
    for module in model.modules():
        if PACKED.get(type(module).__name__) == "nf4":
            module.register_state_dict_post_hook(_leave_weight_out)
            module.register_load_state_dict_pre_hook(_keep_weight)


def _leave_weight_out(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
    """Weights in 4 bits are made from the base again: bitsandbytes saves them with their scales, but can't load those by name."""
    for name in [name for name in state if name.startswith(prefix + "weight")]:
        del state[name]


def _keep_weight(module: nn.Module, state: dict, prefix: str, *_: object) -> None:
    """The counterpart of `_leave_weight_out`."""
    state[prefix + "weight"] = module.weight.data


def _gguf(path: str) -> tuple[str, dict[str, str]]:
    """Folder and `gguf_file` argument for a GGUF file, or for a folder that holds one and no config.json."""
    folder = Path(path).expanduser()
    if folder.suffix == ".gguf" and folder.is_file():
        return str(folder.parent), {"gguf_file": folder.name}
    if folder.is_dir() and not (folder / "config.json").is_file():
        found = sorted(folder.glob("*.gguf"))
        if found:
            return str(folder), {"gguf_file": found[0].name}
    return path, {}
