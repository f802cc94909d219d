"""Names and shapes of a published ALBEF checkpoint.

Legend: W text width, U vision width, D joint embedding, K queue, V vocabulary.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor


class Shapes(NamedTuple):
    """Everything the shapes of a published checkpoint depend on; the values are those of the released files."""

    vision_width: int = 768
    vision_layers: int = 12
    vision_mlp: int = 3072
    vision_tokens: int = 257
    patch_size: int = 16
    text_width: int = 768
    text_mlp: int = 3072
    text_layers: int = 6
    fusion_layers: int = 6
    vocab_size: int = 30522
    max_positions: int = 512
    embed_dim: int = 256
    queue_size: int = 65536


def official_entries(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published pre-training checkpoint."""
    z = shapes
    entries: dict[str, tuple[int, ...]] = {"temp": (), "queue_ptr": (1,)}
    entries |= {"image_queue": (z.embed_dim, z.queue_size), "text_queue": (z.embed_dim, z.queue_size)}
    entries |= _linear("itm_head", 2, z.text_width)
    for m in ("", "_m"):
        entries |= {f"visual_encoder{m}.{name}": shape for name, shape in _vision_entries(z)}
        entries |= {f"text_encoder{m}.{name}": shape for name, shape in _text_entries(z)}
        entries |= _linear(f"vision_proj{m}", z.embed_dim, z.vision_width)
        entries |= _linear(f"text_proj{m}", z.embed_dim, z.text_width)
    return entries


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _vision_entries(z: Shapes) -> Iterator[tuple[str, tuple[int, ...]]]:
    u = z.vision_width
    yield "cls_token", (1, 1, u)
    yield "pos_embed", (1, z.vision_tokens, u)
    yield "patch_embed.proj.weight", (u, 3, z.patch_size, z.patch_size)
    yield "patch_embed.proj.bias", (u,)
    for n in range(z.vision_layers):
        block = f"blocks.{n}."
        yield from (_norm(block + "norm1", u) | _norm(block + "norm2", u)).items()
        yield from (_linear(block + "attn.qkv", 3 * u, u) | _linear(block + "attn.proj", u, u)).items()
        yield from (_linear(block + "mlp.fc1", z.vision_mlp, u) | _linear(block + "mlp.fc2", u, z.vision_mlp)).items()
    yield from _norm("norm", u).items()


def _text_entries(z: Shapes) -> Iterator[tuple[str, tuple[int, ...]]]:
    w = z.text_width
    yield "bert.embeddings.position_ids", (1, z.max_positions)
    rows = {"word_embeddings": z.vocab_size, "position_embeddings": z.max_positions, "token_type_embeddings": 2}
    yield from ((f"bert.embeddings.{name}.weight", (count, w)) for name, count in rows.items())
    yield from _norm("bert.embeddings.LayerNorm", w).items()
    for n in range(z.text_layers + z.fusion_layers):
        layer = f"bert.encoder.layer.{n}."
        yield from _attention_entries(layer + "attention", w, w)
        if n >= z.text_layers:
            yield from _attention_entries(layer + "crossattention", w, z.vision_width)
        yield from _linear(layer + "intermediate.dense", z.text_mlp, w).items()
        yield from (_linear(layer + "output.dense", w, z.text_mlp) | _norm(layer + "output.LayerNorm", w)).items()
    head = "cls.predictions."
    yield head + "bias", (z.vocab_size,)
    yield from (_linear(head + "transform.dense", w, w) | _norm(head + "transform.LayerNorm", w)).items()
    yield from _linear(head + "decoder", z.vocab_size, w).items()


def _attention_entries(name: str, width: int, context: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _linear(f"{name}.self.query", width, width).items()
    yield from (_linear(f"{name}.self.key", width, context) | _linear(f"{name}.self.value", width, context)).items()
    yield from (_linear(f"{name}.output.dense", width, width) | _norm(f"{name}.output.LayerNorm", width)).items()


def count(names: Mapping[str, Tensor], pattern: str) -> int:
    """Number of layers: one more than the highest index that `pattern` finds."""
    return 1 + max((int(match[1]) for match in (re.match(pattern, name) for name in names) if match), default=-1)


def shapes_of(official: Mapping[str, Tensor]) -> Shapes:
    """Sizes as told by a few entries, which all the others are then compared with."""

    def size(name: str, axis: int) -> int:
        if name not in official or official[name].ndim <= axis:
            raise ValueError(
                f"not a published ALBEF pre-training checkpoint: {name} is missing or has another number of dimensions"
            )
        return official[name].shape[axis]

    layer = "text_encoder.bert.encoder.layer."
    layers = count(official, r"text_encoder\.bert\.encoder\.layer\.(\d+)\.")
    fusing = sum(f"{layer}{n}.crossattention.self.query.weight" in official for n in range(layers))
    return Shapes(
        vision_width=size("visual_encoder.cls_token", 2),
        vision_layers=count(official, r"visual_encoder\.blocks\.(\d+)\."),
        vision_mlp=size("visual_encoder.blocks.0.mlp.fc1.weight", 0),
        vision_tokens=size("visual_encoder.pos_embed", 1),
        patch_size=size("visual_encoder.patch_embed.proj.weight", 2),
        text_width=size("text_encoder.bert.embeddings.word_embeddings.weight", 1),
        text_mlp=size(f"{layer}0.intermediate.dense.weight", 0),
        text_layers=layers - fusing,
        fusion_layers=fusing,
        vocab_size=size("text_encoder.bert.embeddings.word_embeddings.weight", 0),
        max_positions=size("text_encoder.bert.embeddings.position_embeddings.weight", 0),
        embed_dim=size("vision_proj.weight", 0),
        queue_size=size("image_queue", 1),
    )
