"""Causal language models and encoders to use or train further: from a hub id, a folder or one of
our run directories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from alignlab.models.language.paths import gguf_file, note_origin, resolve_model
from alignlab.models.language.pretrained_files import from_folder
from alignlab.models.language.quantized import Dtype, Quantization, quantization_config, settle
from alignlab.models.language.trunk import checkpoint_activations
from alignlab.types.language import LanguageVocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_language_model(
    path: str,
    dtype: Dtype = "float32",
    quantization: Quantization | None = None,
    device: str = "cpu",
) -> PreTrainedModel:
    """A causal language model in evaluation mode; behind an adapter's folder, the base with the adapter on top.

    quantization: of the linear layers of the base's blocks; "int8" our own (weights alone), "llm_int8" and "nf4" by
    bitsandbytes. Raises ValueError, in one line, for what can't be read or isn't installed.
    """
    import torch
    from transformers import AutoModelForCausalLM

    base, adapter = resolve_model(path)
    folder, gguf = gguf_file(base)
    extra: dict = dict(gguf)
    if gguf:
        from transformers import GgufConfig

        extra["quantization_config"] = GgufConfig(dequantize=True)
        if quantization is not None:
            raise ValueError(f"model={path}: a GGUF file is dequantised when it is read; use quantization=null")
    elif quantization not in (None, "int8"):
        extra |= {"quantization_config": quantization_config(quantization, dtype), "device_map": device}
    try:
        model = from_folder(AutoModelForCausalLM, folder, dtype=getattr(torch, dtype), **extra)
    except ValueError as error:
        raise ValueError(f"model={path}: no causal language model could be read from {folder} ({error})") from error
    if quantization == "int8":
        from alignlab.models.language.int8_linear import quantize_blocks

        quantize_blocks(model)
    if quantization is not None:
        settle(model)
    if adapter is not None:
        from alignlab.models.language.lora import put_on

        model = put_on(model, adapter)
    return model.eval() if "device_map" in extra else model.eval().to(device)


def pretrained(
    path: str,
    dtype: Dtype = "float32",
    quantization: Quantization | None = None,
    gradient_checkpointing: bool = False,
    *,
    vocabulary: LanguageVocabulary,
) -> PreTrainedModel:
    """A model to train further: as `load_language_model`, with an adapter merged into it.

    A quantised base can't take an adapter in; then the adapter stays and is named "reference" (see
    `models/language/lora.py`). Raises ValueError if the tokenizer has more ids than the model.
    """
    model, (base, adapter) = load_language_model(path, dtype, quantization), resolve_model(path)
    if hasattr(model, "merge_and_unload"):
        from alignlab.models.language.lora import as_reference, merged

        if quantization is None:
            model = merged(model)
        else:
            model = as_reference(model, adapter)
    note_origin(model, base, adapter)
    if vocabulary.added:
        if quantization is not None:
            raise ValueError(f"quantization={quantization}: a base for new tokens must not be quantised")
        add_rows(model, vocabulary.new_ids)
        model.new_ids, model.origin = tuple(vocabulary.new_ids), None  # with these rows it is nowhere as it is
    rows = model.get_input_embeddings().weight.shape[0]
    if vocabulary.size > rows:
        raise ValueError(f"the tokenizer has {vocabulary.size} ids, the model {path} only {rows}")
    if quantization is None:
        model.requires_grad_(True)
    if gradient_checkpointing:
        checkpoint_activations(model)
    return model.train()


def add_rows(model: PreTrainedModel, pieces: Mapping[int, Sequence[int]]) -> None:
    """Gives new ids rows in both embeddings, the mean of the rows of the pieces that each stood for; no other row
    changes.

    pieces: new id -> ids that its text was cut into before. Tables grow where they have no such rows.
    """
    import torch

    size = max(model.get_input_embeddings().weight.shape[0], max(pieces) + 1)
    if size > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(size, mean_resizing=False)
    head = model.get_output_embeddings()
    tables = [model.get_input_embeddings().weight]
    if head is not None and head.weight.data_ptr() != tables[0].data_ptr():
        tables.append(head.weight)
    if head is not None and getattr(head, "bias", None) is not None:
        tables.append(head.bias)
    with torch.no_grad():
        for index, parts in pieces.items():
            for table in tables:
                table[index] = table[list(parts)].mean(dim=0)


def pretrained_encoder(path: str, *, vocabulary: LanguageVocabulary) -> PreTrainedModel:
    """A released encoder without its head, for reward models; `path` as in `resolve_model`, or `package:name/folder`.

    Raises ValueError if it can't be read or has fewer ids than the tokenizer.
    """
    from transformers import AutoModel

    folder, adapter = resolve_model(path)
    try:
        model = from_folder(AutoModel, folder, trunk=True, dtype="float32")
    except ValueError as error:
        raise ValueError(f"model={path}: no encoder could be read from {folder} ({error})") from error
    if vocabulary.size > model.config.vocab_size:
        raise ValueError(f"the tokenizer has {vocabulary.size} ids, the model {path} only {model.config.vocab_size}")
    if hasattr(model, "pooler"):
        model.pooler = None  # a head of BERT's that nothing here uses
    return note_origin(model, folder, adapter).train()
