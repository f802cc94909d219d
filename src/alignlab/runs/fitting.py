"""Whether the data give what the method learns from, by the types of their batches."""

import pkgutil
from typing import Any, get_type_hints

from omegaconf import DictConfig

from alignlab.types.language import LabelledBatch, PreferenceBatch, PromptBatch, TokenBatch
from alignlab.types.pairs import PairBatch
from alignlab.types.picture_tasks import JudgedBatch, QuestionBatch

# What they are, and which data there are.
_KINDS = {
    TokenBatch: ("texts to learn", "data=movie_reviews, jsonl or hub"),
    PreferenceBatch: ("pairs of texts", "data=movie_preferences or preference_jsonl, or data.kind=preference"),
    LabelledBatch: ("texts with labels", "data=movie_labels or label_jsonl, or data.kind=label"),
    PromptBatch: ("prompts to answer", "data=movie_prompts, or data=jsonl data.kind=prompt"),
    PairBatch: ("pictures with captions", "data=emoji_scenes, emoji or image_text"),
    JudgedBatch: ("texts about pictures with labels", "data=emoji_scenes_entailment or emoji_scenes_nlvr2"),
    QuestionBatch: ("questions about pictures", "data=emoji_scenes_vqa"),
}


def check_kind(model: DictConfig, datamodule: Any) -> None:
    """Refuses data of another kind than the method learns from; what isn't one of these kinds is left alone.

    Raises:
        ValueError: naming both and the data that would fit.
    """
    method = pkgutil.resolve_name(model._target_)
    wanted = PromptBatch if getattr(method, "rolls_out", False) else get_type_hints(method.forward).get("batch")
    given = getattr(datamodule, "batch_type", None)
    if wanted in _KINDS and given in _KINDS and wanted is not given:
        raise ValueError(
            f"data: these are {_KINDS[given][0]}, but {method.__name__} learns from {_KINDS[wanted][0]}: "
            f"take {_KINDS[wanted][1]}"
        )
