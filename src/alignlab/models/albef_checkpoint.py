"""Published ALBEF checkpoints, read and written strictly; `albef_layout.py` says what they hold.

A published pre-training checkpoint holds 844 entries at full size: the student, its momentum twin under `..._m`, the
temperature, the matching head and both queues (arXiv:2107.07651). Here query, key and value are one matrix, queues are
(K, D) and carry ids, and text and fusion layers are counted apart; everything else is a change of names.

Legend: W text width, U vision width, D joint embedding, K queue, V vocabulary.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab.models.albef_layout import Shapes, count, official_entries, shapes_of
from alignlab.models.vision import resize_position_embedding

VISION = "vision.trunk."  # where the timm ViT lives inside our vision tower
UNKNOWN_ID = -1  # of queue entries whose picture and caption nobody knows


class AlbefState(NamedTuple):
    """State dicts of `Albef`, of its teacher (an `AlbefEncoder`) and of `FeatureQueue`."""

    net: dict[str, Tensor]
    teacher: dict[str, Tensor]
    queue: dict[str, Tensor]

    def of_system(self) -> dict[str, Tensor]:
        """As one state dict of ALBEF's method."""
        prefixed = {"net.": self.net, "twin.teacher.": self.teacher, "queue.": self.queue}
        return {prefix + name: x for prefix, state in prefixed.items() for name, x in state.items()}

    @classmethod
    def from_system(cls, state: Mapping[str, Tensor]) -> "AlbefState":
        """Split a state dict of ALBEF's method; an entry of anything else raises ValueError."""
        parts: dict[str, dict[str, Tensor]] = {"net.": {}, "twin.teacher.": {}, "queue.": {}}
        for name, x in state.items():
            prefix = next((p for p in parts if name.startswith(p)), None)
            if prefix is None:
                raise ValueError(f"not an entry of ALBEF pre-training: {name}")
            parts[prefix][name.removeprefix(prefix)] = x
        return cls(*parts.values())


def from_official(official: Mapping[str, Tensor], *, grid: tuple[int, int] | None = None) -> AlbefState:
    """Translate a published checkpoint (its `model` entry) into our state dicts.

    `grid` (rows, columns) resizes the position embedding of the patches, bicubically, to that number of patches.
    Raises ValueError that lists every missing, unexpected or misshapen entry, and where tied tensors differ.
    """
    if "model" in official and not isinstance(official["model"], Tensor):
        official = official["model"]
    shapes = shapes_of(official)
    _compare({k: tuple(v.shape) for k, v in official.items()}, official_entries(shapes), "published checkpoint")
    _check_ties(official)
    student, teacher = (_encoder_from_official(official, m, shapes, grid) for m in ("", "_m"))
    net = {f"encoder.{name}": x for name, x in student.items()}
    net |= {"temperature": official["temp"].reshape(1)}
    net |= {f"matching_head.{p}": official[f"itm_head.{p}"] for p in ("weight", "bias")}
    unknown = torch.full((shapes.queue_size,), UNKNOWN_ID, dtype=torch.int64)
    queue = {name: official[f"{name}_queue"].T.contiguous() for name in ("image", "text")}
    queue |= {"image_id": unknown, "text_id": unknown.clone(), "pointer": official["queue_ptr"].clone()}
    return AlbefState(net, teacher, queue)


def to_official(state: AlbefState) -> dict[str, Tensor]:
    """Translate our state dicts into a published checkpoint's `model` entry; the queues' ids have no place there and
    are dropped.

    Raises ValueError that lists every missing, unexpected or misshapen entry.
    """
    net = dict(state.net)
    student = {n.removeprefix("encoder."): net.pop(n) for n in list(net) if n.startswith("encoder.")}
    _compare(net, {"temperature", "matching_head.weight", "matching_head.bias"}, "net")
    _compare(state.queue, {"image", "text", "image_id", "text_id", "pointer"}, "queue")
    official = {"temp": net["temperature"].reshape(()), "queue_ptr": state.queue["pointer"].clone()}
    official |= {f"{name}_queue": state.queue[name].T.contiguous() for name in ("image", "text")}
    official |= {f"itm_head.{p}": net[f"matching_head.{p}"] for p in ("weight", "bias")}
    for m, encoder in (("", student), ("_m", state.teacher)):
        official |= _encoder_to_official(encoder, m)
    _compare({k: tuple(v.shape) for k, v in official.items()}, official_entries(shapes_of(official)), "net")
    return official


# --- names
# ------------------------------------------------------------------------------------------------------------


def bert_names(text_layers: int, fusion_layers: int) -> Iterator[tuple[str, list[str]]]:
    """Our encoder's module or tensor, and the published ones it is stacked from (below `text_encoder`; BERT's own, but
    for the cross-attention), for all but the vision tower.
    """
    yield "embeddings.word", ["bert.embeddings.word_embeddings"]
    yield "embeddings.position", ["bert.embeddings.position_embeddings"]
    yield "embeddings.segment", ["bert.embeddings.token_type_embeddings"]
    yield "embeddings.norm", ["bert.embeddings.LayerNorm"]
    for n in range(text_layers + fusion_layers):
        theirs = f"bert.encoder.layer.{n}."
        ours = f"text.{n}." if n < text_layers else f"fusion.{n - text_layers}."
        itself = f"{theirs}attention.self."
        yield f"{ours}self_attention.query_key_value", [itself + "query", itself + "key", itself + "value"]
        yield f"{ours}self_attention.out", [f"{theirs}attention.output.dense"]
        yield f"{ours}self_attention.norm", [f"{theirs}attention.output.LayerNorm"]
        if n >= text_layers:
            cross = f"{theirs}crossattention.self."
            yield f"{ours}cross_attention.query", [cross + "query"]
            yield f"{ours}cross_attention.key_value", [cross + "key", cross + "value"]
            yield f"{ours}cross_attention.out", [f"{theirs}crossattention.output.dense"]
            yield f"{ours}cross_attention.norm", [f"{theirs}crossattention.output.LayerNorm"]
        yield f"{ours}feed_forward.inner", [f"{theirs}intermediate.dense"]
        yield f"{ours}feed_forward.out", [f"{theirs}output.dense"]
        yield f"{ours}feed_forward.norm", [f"{theirs}output.LayerNorm"]
    yield "language_head.dense", ["cls.predictions.transform.dense"]
    yield "language_head.norm", ["cls.predictions.transform.LayerNorm"]


# --- translation
# ------------------------------------------------------------------------------------------------------


def _encoder_from_official(
    official: Mapping[str, Tensor], m: str, z: Shapes, grid: tuple[int, int] | None
) -> dict[str, Tensor]:
    vision, text = f"visual_encoder{m}.", f"text_encoder{m}."
    ours = {VISION + k.removeprefix(vision): x for k, x in official.items() if k.startswith(vision)}
    if grid is not None:
        ours[VISION + "pos_embed"] = resize_position_embedding(ours[VISION + "pos_embed"], grid)
    for name, parts in bert_names(z.text_layers, z.fusion_layers):
        for kind in ("weight", "bias"):
            stack = [official[f"{text}{part}.{kind}"] for part in parts if f"{text}{part}.{kind}" in official]
            if stack:  # embeddings have no bias
                ours[f"{name}.{kind}"] = stack[0] if len(stack) == 1 else torch.cat(stack)
    ours["language_head.bias"] = official[text + "cls.predictions.bias"]
    for theirs, name in ((f"vision_proj{m}", "image_projection"), (f"text_proj{m}", "text_projection")):
        ours |= {f"{name}.{kind}": official[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    return ours


def _encoder_to_official(encoder: Mapping[str, Tensor], m: str) -> dict[str, Tensor]:
    rest = dict(encoder)  # what is left at the end has no place in the published layout
    missing: list[str] = []

    def take(name: str) -> Tensor:
        if name not in rest:
            missing.append(name)
            return torch.empty(0)
        return rest.pop(name)

    vision, text = f"visual_encoder{m}.", f"text_encoder{m}."
    theirs = {vision + name.removeprefix(VISION): rest.pop(name) for name in encoder if name.startswith(VISION)}
    for name, parts in bert_names(count(encoder, r"text\.(\d+)\."), count(encoder, r"fusion\.(\d+)\.")):
        for kind in ("weight", "bias"):
            if kind == "bias" and name.startswith("embeddings.") and not name.endswith("norm"):
                continue
            for part, x in zip(parts, take(f"{name}.{kind}").chunk(len(parts)), strict=False):
                theirs[f"{text}{part}.{kind}"] = x.clone() if len(parts) > 1 else x
    theirs |= {f"vision_proj{m}.{kind}": take(f"image_projection.{kind}") for kind in ("weight", "bias")}
    theirs |= {f"text_proj{m}.{kind}": take(f"text_projection.{kind}") for kind in ("weight", "bias")}
    bias = take("language_head.bias")
    if missing or rest:
        raise ValueError(_complaint("net", missing, sorted(rest), []))
    words, positions = (theirs[f"{text}bert.embeddings.{name}_embeddings.weight"] for name in ("word", "position"))
    theirs[text + "bert.embeddings.position_ids"] = torch.arange(len(positions))[None]
    head = text + "cls.predictions."
    return theirs | {head + "bias": bias, head + "decoder.weight": words, head + "decoder.bias": bias}


# --- checks
# -----------------------------------------------------------------------------------------------------------


def _check_ties(official: Mapping[str, Tensor]) -> None:
    for m in ("", "_m"):
        head, words = f"text_encoder{m}.cls.predictions.", f"text_encoder{m}.bert.embeddings.word_embeddings.weight"
        for name, twin in ((head + "decoder.weight", words), (head + "decoder.bias", head + "bias")):
            if not torch.equal(official[name], official[twin]):
                raise ValueError(f"{name} differs from {twin}: this net ties them, so one of the two would be lost")


def _compare(actual: Mapping[str, object], expected: Mapping[str, object] | set[str], what: str) -> None:
    missing, unexpected = sorted(set(expected) - set(actual)), sorted(set(actual) - set(expected))
    misshapen = []
    if isinstance(expected, Mapping):
        both = [name for name in expected if name in actual and actual[name] != expected[name]]
        misshapen = [f"{name} {actual[name]} instead of {expected[name]}" for name in both]
    if missing or unexpected or misshapen:
        raise ValueError(_complaint(what, missing, unexpected, misshapen))


def _complaint(what: str, missing: list[str], unexpected: list[str], misshapen: list[str]) -> str:
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    return f"{what} does not fit: " + "; ".join(
        f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names
    )
