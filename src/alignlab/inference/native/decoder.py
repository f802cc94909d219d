"""One decoder for all architectures of `architecture.py`, with a preallocated cache: only what inference needs.

Legend: B rows of the batch, T positions of this call, S columns of the cache, H query heads, K key heads, D head
width, W model width, V vocabulary. Rows end at the same column, so shorter prompts begin later: all rows write the
same column, whatever their length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from alignlab.distributed.devices import sent
from alignlab.inference.native.architecture import Architecture, Shard, group_map
from alignlab.inference.native.linears import Embedding, Layer, Linear, Norm
from alignlab.models.language.decoder.positions import alibi_slopes

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
}


class Cache:
    """Keys and values of all layers, (L, B, K, S, D) each; `column` is the next one to write.

    Args:
        starts: the first column of each row that is not padding, on the host.
    """

    def __init__(self, keys: Tensor, values: Tensor, starts: Sequence[int]) -> None:
        self.keys, self.values, self.column = keys, values, 0
        self._first = list(starts)
        self.starts = sent(torch.tensor(self._first), keys.device)  # (B,)

    @property
    def padded(self) -> bool:
        """Whether any row begins later than the others."""
        return any(self._first)

    def columns(self, count: int) -> Tensor:
        """Those of the next `count` positions: (T,)."""
        return torch.arange(self.column, self.column + count, device=self.keys.device)

    def advance(self, count: int) -> None:
        """Go on by as many columns."""
        self.column += count

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Appends (B, T, K, D) each and gives what attention looks at: (B, K, S, D)."""
        key, value = key.transpose(1, 2), value.transpose(1, 2)
        end = self.column + key.shape[2]
        self.keys[layer][:, :, self.column : end] = key
        self.values[layer][:, :, self.column : end] = value
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def keep(self, rows: Sequence[int], index: Tensor) -> None:
        """Drop all rows but these, and the columns that are padding in all of them; `index` holds the rows on the
        device.
        """
        first = min(self._first[row] for row in rows)
        self._first = [self._first[row] - first for row in rows]
        self.starts = self.starts[index] - first
        self.keys, self.values = self.keys[:, index, :, first:], self.values[:, index, :, first:]
        self.advance(-first)

    def bytes(self) -> int:
        """Size of both tensors."""
        return self.keys.nbytes + self.values.nbytes


class FixedCache:
    """The same for steps whose shapes and addresses never change: attention spans all S columns under a mask.

    Args:
        starts: (B,) on the device.
        at: (1,) the column that a step writes, on the device, or (T,) those of prompts.
    """

    def __init__(self, keys: Tensor, values: Tensor, starts: Tensor, at: Tensor) -> None:
        self.keys, self.values, self.starts, self.at = keys, values, starts, at

    def columns(self, count: int) -> Tensor:
        """The columns of the step."""
        assert count == len(self.at), "the columns of a step are given"
        return self.at

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Writes (B, T, K, D) each and gives what attention looks at: (B, K, S, D)."""
        self.keys[layer].index_copy_(2, self.at, key.transpose(1, 2))
        self.values[layer].index_copy_(2, self.at, value.transpose(1, 2))
        return self.keys[layer], self.values[layer]


@dataclass
class Positions:
    """What depends on positions only and serves all layers of a call."""

    cosine: Tensor | None = None
    sine: Tensor | None = None  # with the sign of the rotation
    mask: Tensor | None = None  # (B or 1, H or 1, T, S): True = may look, or ALiBi's bias
    causal: bool = False


class LayerSource(Protocol):
    """Layers that are not all in memory."""

    def __iter__(self) -> Iterator[Layer]: ...

    def tensors(self) -> list[Tensor]:
        """What is in memory."""
        ...


@dataclass
class Decoder:
    """A decoder's weights, or one process's part of them."""

    architecture: Architecture
    shard: Shard
    embedding: Embedding
    head: Linear
    layers: list[Layer] | LayerSource
    final_norm: Norm
    position_embedding: Tensor | None = None
    embedding_norm: Norm | None = None
    reduce: Callable[[Tensor], Tensor] = lambda x: x  # sum over processes
    gather: Callable[[Tensor], Tensor] = lambda x: x  # concatenation of the last dimension over processes

    def __post_init__(self) -> None:
        a = self.architecture
        self.group_map = group_map(self.shard, a.heads // a.kv_heads)
        self.heads = self.shard.heads[1] - self.shard.heads[0]
        self.kv_heads = self.shard.kv_heads[1] - self.shard.kv_heads[0]
        self._activation = ACTIVATIONS[a.activation]
        self._slopes = alibi_slopes(a.heads)[slice(*self.shard.heads)].to(self.device) if a.alibi else None
        # of rotations; the smaller ones stay, as CUDA graphs know their addresses
        self._tables: list[tuple[Tensor, Tensor]] = []

    def tensors(self) -> list[Tensor]:
        """All weights that are in memory."""
        single = [*self.embedding.tensors(), *self.head.tensors(), *self.final_norm.tensors()]
        single += [] if self.position_embedding is None else [self.position_embedding]
        single += [] if self.embedding_norm is None else self.embedding_norm.tensors()
        if isinstance(self.layers, list):
            return single + [tensor for layer in self.layers for tensor in layer.tensors()]
        return single + self.layers.tensors()  # streamed ones

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.final_norm.weight.device

    def cache(self, starts: Sequence[int], columns: int) -> Cache:
        """An empty cache for rows that begin at these columns."""
        keys, values = (self.final_norm.weight.new_empty(self.cache_shape(len(starts), columns)) for _ in range(2))
        return Cache(keys, values, starts)

    def cache_shape(self, rows: int, columns: int) -> tuple[int, int, int, int, int]:
        """Of the keys, or the values, of all layers."""
        return self.architecture.layers, rows, self.kv_heads, columns, self.architecture.head_dim

    def hidden(self, ids: Tensor, cache: Cache) -> Tensor:
        """States after the last norm, and the cache filled by T columns: (B, T) -> (B, T, W)."""
        states = self.states(ids, cache)
        cache.advance(ids.shape[1])
        return states

    def states(self, ids: Tensor, cache: Cache | FixedCache) -> Tensor:
        """The same without going on to the next column."""
        columns = cache.columns(ids.shape[1])
        positions = (columns - cache.starts[:, None]).clamp(min=0)  # (B, T)
        x = self._embed(ids)
        if self.position_embedding is not None:  # a row that has ended may run on to the end of the batch
            x = x + self.position_embedding[positions.clamp(max=len(self.position_embedding) - 1)]
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        shared = Positions()
        alike = isinstance(cache, Cache) and not cache.padded
        self._rotations_of(positions[:1] if alike else positions, cache, shared)
        self._mask_of(columns, cache, shared)
        for index, layer in enumerate(self.layers):
            x = self._block(layer, x, cache, index, shared)
        return self.final_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., W) -> (..., V) in fp32."""
        return self.gather(self.head(hidden)).float()

    def _embed(self, ids: Tensor) -> Tensor:
        first, stop = self.shard.vocabulary
        if stop - first == self.architecture.vocabulary:
            return self.embedding(ids)
        own = (ids >= first) & (ids < stop)
        rows = self.embedding((ids - first).masked_fill(~own, 0))
        return self.reduce(rows * own[..., None])

    def _rotations_of(self, positions: Tensor, cache: Cache | FixedCache, shared: Positions) -> None:
        a = self.architecture
        if a.rotary is None:
            return
        extra = (None,) * (2 if a.qkv_order == "per_head" else 1)
        shared.cosine, shared.sine = (
            table[positions][(..., *extra, slice(None))] for table in self.rotation_tables(cache)
        )

    def rotation_tables(self, cache: Cache | FixedCache) -> tuple[Tensor, Tensor]:
        """Cosines and sines of as many positions as the cache has columns or more."""
        columns = cache.keys.shape[3]
        if not self._tables or len(self._tables[-1][0]) < columns:
            size = max(256, 1 << (columns - 1).bit_length())
            self._tables.append(rotations(*self.architecture.rotary, size, cache.keys))
        return self._tables[-1]

    def _mask_of(self, columns: Tensor, cache: Cache | FixedCache, shared: Positions) -> None:
        """Which columns the queries at `columns` see, or a bias on them; nothing where attention needs no mask."""
        length, fixed = len(columns), isinstance(cache, FixedCache)
        if not fixed and not cache.padded and self._slopes is None and (length == 1 or cache.column == 0):
            shared.causal = length > 1
            return
        keys = torch.arange(cache.keys.shape[3] if fixed else cache.column + length, device=columns.device)
        queries = columns[:, None]
        seen = keys <= queries  # (T, S)
        if fixed or cache.padded:  # padding sees itself, or its softmax would be empty
            seen = seen & ((keys >= cache.starts[:, None, None]) | (keys == queries))
        seen = seen.view(-1, 1, length, len(keys))
        if self._slopes is not None:
            bias = self._slopes[:, None, None] * (keys - columns[-1])
            shared.mask = bias.masked_fill(~seen, -torch.inf).to(cache.keys.dtype)
        elif fixed:  # once a step: attention would make a bias of it in every layer
            shared.mask = cache.keys.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)
        else:
            shared.mask = seen

    def _block(self, layer: Layer, x: Tensor, cache: Cache | FixedCache, index: int, shared: Positions) -> Tensor:
        a = self.architecture
        normed = layer.norm1(x)
        attended = layer.out(self._attend(layer.qkv(normed), cache, index, shared))
        if a.parallel:
            return x + self.reduce(attended + self._mlp(layer, layer.norm2(x)))
        x = (normed if a.post_norm_residual else x) + self.reduce(attended)
        normed = layer.norm2(x)
        return (normed if a.post_norm_residual else x) + self.reduce(self._mlp(layer, normed))

    def _mlp(self, layer: Layer, x: Tensor) -> Tensor:
        x = layer.up(x)
        if not self.architecture.gated:
            return layer.down(self._activation(x))
        gate, up = x.chunk(2, dim=-1)
        return layer.down(self._activation(gate) * up)

    def _attend(self, qkv: Tensor, cache: Cache | FixedCache, index: int, shared: Positions) -> Tensor:
        """(B, T, (H + 2K) D) -> (B, T, H D)."""
        rows, length, a = *qkv.shape[:2], self.architecture
        if a.qkv_order == "per_head":
            qkv = qkv.view(rows, length, self.heads, 3, a.head_dim)
            turned, value = qkv[..., :2, :], qkv[..., 2, :]
            query, key = _rotate(turned, shared).unbind(-2)
        else:
            qkv = qkv.view(rows, length, self.heads + 2 * self.kv_heads, a.head_dim)
            turned, value = qkv[:, :, : -self.kv_heads], qkv[:, :, -self.kv_heads :]
            turned = _rotate(turned, shared)
            query, key = turned[:, :, : self.heads], turned[:, :, self.heads :]
        keys, values = cache.write(index, key, value)  # (B, K, S, D)
        heads = self.kv_heads
        if self.group_map is not None:
            keys, values, heads = keys[:, self.group_map], values[:, self.group_map], self.heads
        group = self.heads // heads
        if length == 1 and group > 1 and self._slopes is None:  # a group's queries are rows of one small product
            query = query.reshape(rows, heads, group, a.head_dim)
            out = F.scaled_dot_product_attention(query, keys, values, shared.mask)
            return out.reshape(rows, 1, -1)
        out = F.scaled_dot_product_attention(
            query.transpose(1, 2), keys, values, shared.mask, is_causal=shared.causal, enable_gqa=group > 1
        )
        return out.transpose(1, 2).reshape(rows, length, -1)


def _rotate(x: Tensor, shared: Positions) -> Tensor:
    """Rotary position embedding of the first columns (arXiv:2104.09864, halves instead of pairs)."""
    if shared.cosine is None:
        return x
    width = shared.cosine.shape[-1]
    part = x[..., :width]
    turned = torch.addcmul(part * shared.cosine, part.roll(width // 2, -1), shared.sine)
    return turned if width == x.shape[-1] else torch.cat([turned, x[..., width:]], dim=-1)


def rotations(frequencies: Tensor, scaling: float, columns: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Tables of cosines and signed sines: (S, rotary width) each."""
    angles = torch.outer(torch.arange(columns, device=like.device).float(), sent(frequencies.float(), like.device))
    cosine, sine = angles.cos() * scaling, angles.sin() * scaling
    return torch.cat([cosine, cosine], -1).to(like.dtype), torch.cat([-sine, sine], -1).to(like.dtype)
