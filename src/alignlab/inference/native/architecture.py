"""What BLOOM, GPT-2, GPT-NeoX and the Llama family have in common, and where each keeps its weights.

A decoder layer is four linears (`qkv`, `out`, `up`, `down`) and two norms in all of them. What differs is said here:
names in the file, the order of queries, keys and values within a fused matrix, positions, activation, and where the
residual goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    pass


class Piece(NamedTuple):
    """Rows (of the output, or of the input for `out` and `down`) of one module's matrix."""

    module: str
    start: int
    stop: int


@dataclass(frozen=True)
class Shard:
    """Which heads and which part of the MLP one process holds; `[start, stop)` each."""

    heads: tuple[int, int]
    kv_heads: tuple[int, int]
    inner: tuple[int, int]
    vocabulary: tuple[int, int]
    first: bool = True  # adds the biases that must be added once


@dataclass(frozen=True)
class Architecture:
    """A decoder's sizes and habits; `{i}` in a name stands for the layer."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    max_positions: int | None  # None: no limit (ALiBi)
    eps: float
    prefix: str  # of everything but the head; files of base models leave it out
    names: dict[
        str, str
    ]  # part -> module: embedding, positions, embedding_norm, norm1, norm2, out, down, final_norm, head
    qkv: tuple[str, ...]  # one fused module or three
    up: tuple[str, ...]  # one module, or gate and up
    qkv_order: Literal["blocks", "per_head"] = "blocks"  # [q; k; v] or [head][q, k, v]
    transposed: bool = False  # (in, out) matrices: GPT-2's Conv1D
    rms_norm: bool = False
    activation: Literal["gelu", "gelu_tanh", "silu", "relu"] = "gelu"
    parallel: bool = False  # attention and MLP read the same residual
    post_norm_residual: bool = False
    alibi: bool = False
    rotary: tuple[Tensor, float] | None = field(default=None, compare=False)  # inverse frequencies, scaling

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies its activation with a second projection."""
        return len(self.up) == 2

    def whole(self) -> Shard:
        """The shard that is everything."""
        return Shard((0, self.heads), (0, self.kv_heads), (0, self.inner), (0, self.vocabulary))

    def split(self, rank: int, ranks: int) -> Shard:
        """The shard of one of several processes: parts differ by one at most.

        Query heads are split evenly, and a rank holds the key heads that its queries need (one may live on two ranks).
        """
        if ranks > self.heads:
            raise ValueError(f"processes={ranks} is more than the model's {self.heads} attention heads")
        heads = _part(self.heads, rank, ranks)
        group = self.heads // self.kv_heads
        if self.kv_heads % ranks == 0:  # then no key head is held twice
            kv_heads = _part(self.kv_heads, rank, ranks)
            heads = (kv_heads[0] * group, kv_heads[1] * group)
        kv_heads = (heads[0] // group, (heads[1] - 1) // group + 1)
        inner, vocabulary = _part(self.inner, rank, ranks), _part(self.vocabulary, rank, ranks)
        return Shard(heads, kv_heads, inner, vocabulary, first=rank == 0)

    def pieces(self, part: Literal["qkv", "out", "up", "down"], shard: Shard) -> tuple[list[Piece], int]:
        """What a shard needs of a linear, and the dimension that is cut: 0 the output, 1 the input."""
        size = self.head_dim
        (a, b), (c, d), (e, f) = shard.heads, shard.kv_heads, shard.inner
        if part == "out":
            return [Piece(self.names["out"], a * size, b * size)], 1
        if part == "down":
            return [Piece(self.names["down"], e, f)], 1
        if part == "up":
            return [Piece(module, e, f) for module in self.up], 0
        if self.qkv_order == "per_head":
            return [Piece(self.qkv[0], a * 3 * size, b * 3 * size)], 0
        if len(self.qkv) == 3:
            ranges = [(a, b), (c, d), (c, d)]
            return [Piece(m, x * size, y * size) for m, (x, y) in zip(self.qkv, ranges, strict=True)], 0
        blocks = [
            (a, b),
            (self.heads + c, self.heads + d),
            (self.heads + self.kv_heads + c, self.heads + self.kv_heads + d),
        ]
        return [Piece(self.qkv[0], x * size, y * size) for x, y in blocks], 0

    def modules(self) -> list[str]:
        """Names of the linears of a layer, as adapters name them."""
        return [*self.qkv, self.names["out"], *self.up, self.names["down"]]


def joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbouring rows of one matrix as one piece."""
    merged = pieces[:1]
    for piece in pieces[1:]:
        last = merged[-1]
        if piece.module == last.module and piece.start == last.stop:
            merged[-1] = Piece(last.module, last.start, piece.stop)
        else:
            merged.append(piece)
    return merged


def _part(size: int, rank: int, ranks: int) -> tuple[int, int]:
    """Part of `rank`; the first parts are the larger ones."""
    quotient, rest = divmod(size, ranks)
    start = rank * quotient + min(rank, rest)
    return start, start + quotient + (rank < rest)


def group_map(shard: Shard, group: int) -> Sequence[int] | None:
    """Key head of each query head within a shard, or None where the heads fall into equal groups."""
    heads, kv_heads = shard.heads[1] - shard.heads[0], shard.kv_heads[1] - shard.kv_heads[0]
    own = [head // group - shard.kv_heads[0] for head in range(*shard.heads)]
    equal = heads % kv_heads == 0 and own == [i // (heads // kv_heads) for i in range(heads)]
    return None if equal else own
