"""Opens what a `ModelSource` names: config, weights, end-of-text tokens, tokenizer, adapter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.files.checksums import check_sums, small
from alignlab.hub.hint import fetch_hint
from alignlab.inference.backend import ModelSource
from alignlab.inference.native.weights import LiveWeights, WeightFiles, Weights
from alignlab.models.language.ends import ends_of
from alignlab.models.language.paths import check_base, load_tokenizer, resolve_model

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")


@dataclass(frozen=True)
class OpenSource:
    """A source whose config was read; weights and tokenizer are opened when asked for."""

    source: ModelSource
    config: PretrainedConfig
    eos: frozenset[int]  # all that end a text (`models.ends`)
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
        ends = ends_of(model.config, model.generation_config, source.tokenizer)
        return OpenSource(source, model.config, frozenset(ends), None, source.adapter)
    from transformers import AutoConfig, GenerationConfig

    base, adapter = resolve_model(source.path)
    folder = base if Path(base).is_dir() else _download(base)
    check_sums(folder, f"model={source.path}", small)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"model={source.path}: its config.json cannot be read ({reason})") from error
    if source.adapter is not None:
        check_base(source.adapter, folder)
    adapter = source.adapter or adapter
    ends = {}
    for place in filter(None, (folder, adapter)):
        if (Path(place) / "generation_config.json").is_file():
            ends |= ends_of(None, GenerationConfig.from_pretrained(place), None)
    ends |= ends_of(config, None, source.tokenizer or _tokenizer(adapter, folder))
    return OpenSource(source, config, frozenset(ends), folder, adapter)


def _tokenizer(adapter: str | None, folder: str) -> PreTrainedTokenizerBase | None:
    """The adapter's own where it has one, else the model's; None where there is none.

    Without files transformers makes up an empty tokenizer for some architectures, with an end of text that the model
    never meant.
    """
    own = adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file()
    place = adapter if own else folder
    if not any((Path(place) / name).is_file() for name in TOKENIZER_FILES):
        return None
    try:
        return load_tokenizer(place)
    except ValueError:
        return None


def _download(name: str) -> str:
    """Folder of a hub model in the cache; fetched into it with HF_HUB_OFFLINE=0 alone."""
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name, allow_patterns=HUB_FILES)
    except Exception as error:  # the hub's client raises many kinds; the user needs one line
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"model={name}: neither a folder nor in the hub's cache ({reason}){fetch_hint(name)}"
        ) from error
