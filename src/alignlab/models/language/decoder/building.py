"""New decoders, and decoders with a released model's weights: what `model.net` names."""

from __future__ import annotations

from typing import Any

from alignlab.models.language.decoder.net import Decoder
from alignlab.models.language.decoder.settings import new_settings
from alignlab.types.language import LanguageVocabulary


def decoder(*, gradient_checkpointing: bool = False, vocabulary: LanguageVocabulary, **settings: Any) -> Decoder:
    """A new decoder.

    Args:
        gradient_checkpointing: activations of layers are computed again in the backward pass.
        vocabulary: of the data.
        settings: see `settings.new_settings`.

    Raises:
        ValueError: a choice that there isn't, or sizes that don't fit each other.
    """
    net = Decoder(new_settings(vocabulary=vocabulary.size, **settings))
    net.gradient_checkpointing, net.words = gradient_checkpointing, vocabulary
    return net


def pretrained_decoder(path: str, *, gradient_checkpointing: bool = False, vocabulary: LanguageVocabulary) -> Decoder:
    """A GPT-2, BLOOM, Llama or Mixtral from a folder, hub id or run directory, as our decoder, to pre-train further.

    Raises:
        ValueError: it can't be read, is of another family, or has fewer ids than the tokenizer.
    """
    from alignlab.models.language.decoder.exchange import from_transformers
    from alignlab.models.language.loading import load_language_model

    model = load_language_model(path)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    net = from_transformers(model)
    if vocabulary.size > net.config.vocabulary:
        raise ValueError(f"the tokenizer has {vocabulary.size} ids, the model {path} only {net.config.vocabulary}")
    net.gradient_checkpointing, net.words = gradient_checkpointing, vocabulary
    return net
