"""Whether the data give what the method learns from, by the types of their batches."""

import inspect
import pkgutil
from collections.abc import Sequence
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
    PairBatch: ("pictures with captions", "data=emoji_scenes, emoji, image_text or coco"),
    JudgedBatch: (
        "texts about pictures with labels",
        "data=emoji_scenes_entailment, emoji_scenes_nlvr2, judged, nlvr2 or snli_ve",
    ),
    QuestionBatch: ("questions about pictures", "data=emoji_scenes_vqa, questions, vqa or easy_vqa"),
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
    if given is JudgedBatch and datamodule.source is not None:
        _check_classes(model, inspect.signature(method).parameters.get("classes"), datamodule.source.labels)
        shown, seen = getattr(datamodule.source, "pictures_a_row", None), getattr(method, "pictures", None)
        if None not in (shown, seen) and shown != seen:
            raise ValueError(f"data: its rows have {shown} pictures each, but {method.__name__} looks at {seen}")


def _check_classes(model: DictConfig, parameter: inspect.Parameter | None, labels: Sequence[str]) -> None:
    """Raises ValueError where a head has fewer classes than the data have labels."""
    classes = None if parameter is None else model.get("classes", parameter.default)
    if classes is not None and classes < len(labels):
        raise ValueError(
            f"model.classes is {classes}, but the data have {len(labels)} labels: {', '.join(labels)}; "
            f"set model.classes={len(labels)}"
        )
