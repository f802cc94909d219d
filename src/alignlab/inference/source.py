"""Opens what a `ModelSource` names: config, weights, end-of-text tokens, tokenizer, adapter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.inference.backend import ModelSource
from alignlab.inference.weights import LiveWeights, WeightFiles, Weights
from alignlab.models.language import load_tokenizer, resolve_model

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")


@dataclass(frozen=True)
class OpenSource:
    """A source whose config was read; weights and tokenizer are opened when asked for."""

    source: ModelSource
    config: PretrainedConfig
    eos: frozenset[int]
    folder: str | None  # of the base model's files; None for a live model
    adapter: str | None

    def weights(self) -> Weights:
        """The base model's tensors."""
        return LiveWeights(self.source.model) if self.folder is None else WeightFiles(self.folder)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer, or None for a live model without one."""
        if self.source.tokenizer is not None or self.folder is None:
            return self.source.tokenizer
        own = self.adapter is not None and (Path(self.adapter) / "tokenizer_config.json").is_file()
        return load_tokenizer(self.adapter if own else self.folder)


def open_source(source: ModelSource) -> OpenSource:
    """Reads the config behind a source; a `ValueError` says in one line what is missing."""
    if source.model is not None:
        model = source.model
        return OpenSource(source, model.config, _ends(model.config, model.generation_config), None, source.adapter)
    from transformers import AutoConfig, GenerationConfig

    base, adapter = resolve_model(source.path)
    folder = base if Path(base).is_dir() else _download(base)
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"model={source.path}: its config.json cannot be read ({reason})") from error
    generation = None
    if (Path(folder) / "generation_config.json").is_file():
        generation = GenerationConfig.from_pretrained(folder)
    return OpenSource(source, config, _ends(config, generation), folder, source.adapter or adapter)


def _download(name: str) -> str:
    """Folder of a hub model, from the cache where it is there."""
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name, allow_patterns=HUB_FILES)
    except Exception as error:  # the hub's client raises many kinds; the user needs one line
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"model={name}: neither a folder nor a model that the hub gives here ({reason})") from error


def _ends(config: PretrainedConfig, generation: GenerationConfig | None) -> frozenset[int]:
    """Tokens that end a text, from the generation config where it names any."""
    for settings in (generation, config):
        found = getattr(settings, "eos_token_id", None)
        if found is not None:
            return frozenset(found if isinstance(found, list | tuple) else [found])
    return frozenset()
