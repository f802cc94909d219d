"""Whether net, data and method fit each other: by the types of batches, and by what a net is."""

import importlib.util
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig
from torch import nn

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
        parameters = inspect.signature(method).parameters
        _check_classes(model, parameters.get("classes"), datamodule.source.labels)
        shown, seen = getattr(datamodule.source, "pictures_a_row", None), getattr(method, "pictures", None)
        if "pictures" in parameters:
            seen = model.get("pictures", parameters["pictures"].default)
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


_NETS = {"Clip": "clip_tiny", "Albef": "albef_tiny", "Coca": "coca_tiny"}  # the smallest choice of each kind


def check_net(model: DictConfig) -> None:
    """Refuses a net of ours that is of another kind than the method is made of; what isn't known is left alone.

    Raises:
        ValueError: naming both, and the net or the method that would fit.
    """
    node = model.get("net")
    if not isinstance(node, Mapping | DictConfig) or not isinstance(node.get("_target_"), str):
        return
    method, builds = pkgutil.resolve_name(model._target_), pkgutil.resolve_name(node["_target_"])
    given, called = _built_by(builds)
    wanted = (get_args(get_type_hints(method.__init__).get("net")) or (None,))[-1]
    known = all(isinstance(kind, type) and issubclass(kind, nn.Module) for kind in (given, wanted))
    if not known or issubclass(given, wanted) or not node["_target_"].startswith("alignlab."):
        return
    remedies = [f"model/net={_NETS[wanted.__name__]}"] if wanted.__name__ in _NETS else []
    task = method.__module__.rpartition(".")[2].partition("_")[1:]  # "_", "vqa" of albef_vqa
    other = "".join((called.lower(), *task))
    if importlib.util.find_spec(f"alignlab.methods.{other}") is not None:
        remedies.append(f"model={other}")
    remedy = f": take {' or '.join(remedies)}" if remedies else ""
    raise ValueError(f"model.net: this is {called}, but {method.__name__} trains {wanted.__name__}{remedy}")


def _built_by(builds: Any) -> tuple[Any, str]:
    """What a class or function gives, and its name; a type that is only imported to be read is some module."""
    if isinstance(builds, type):
        return builds, builds.__name__
    said = builds.__annotations__.get("return")
    try:
        given = get_type_hints(builds).get("return")
    except NameError:
        given = nn.Module
    return given, getattr(said, "__name__", said)
