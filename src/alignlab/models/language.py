"""Causal language models and their tokenizers from a hub id, a folder or one of our run directories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import alignlab.torchvision_ops  # noqa: F401  before transformers and peft import torchvision

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def resolve_model(path: str) -> tuple[str, str | None]:
    """Base model and adapter folder (or None) behind a path: a run directory's `export/`, a folder, or a hub id.

    A path that does not exist is taken for a hub id if it looks like `name` or `owner/name`; anything else is a `ValueError`.
    """
    folder = Path(path).expanduser()
    if (folder / "export").is_dir():
        folder = folder / "export"
    if (folder / "adapter_config.json").is_file():
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base:
            raise ValueError(f"model={path}: {folder / 'adapter_config.json'} names no base_model_name_or_path")
        return base, str(folder)
    if (folder / "config.json").is_file():
        return str(folder), None
    if folder.exists():
        raise ValueError(f"model={path}: neither config.json nor adapter_config.json is there, nor an export/ with one")
    if path.startswith((".", "/", "~")) or path.count("/") > 1 or path.startswith("outputs/"):
        raise ValueError(f"model={path}: there is no such folder")
    return path, None


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Tokenizer of a model: the adapter's own if it has one, else the base model's. Pads with EOS if it has no padding token."""
    from transformers import AutoTokenizer

    base, adapter = resolve_model(path)
    own = adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file()
    folder = adapter if own else base
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"model={path}: no tokenizer could be read from {folder} ({reason})") from error
    if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_language_model(
    path: str,
    dtype: Literal["float32", "bfloat16"] = "float32",
    quantization: Literal["int8", "nf4"] | None = None,
    device: str = "cpu",
) -> PreTrainedModel:
    """A causal language model in evaluation mode; behind an adapter's folder, the base with the adapter on top."""
    import torch
    from transformers import AutoModelForCausalLM

    if quantization is not None:
        raise ValueError(f"quantization={quantization} is not available; use quantization=null")
    base, adapter = resolve_model(path)
    try:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"model={path}: no causal language model could be read from {base} ({reason})") from error
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.eval().to(device)
