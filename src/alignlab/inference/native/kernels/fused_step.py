"""A step of the decode loop as one call of `decode_step.c`: all blocks, one token a row, no interpreter in between.

Legend: B rows, W model width, H query heads, G key heads, D head width, F inner width of the MLP, V vocabulary.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from alignlab.inference.native.decoder import Cache, Decoder, rotations
from alignlab.inference.native.decoding import last_logits
from alignlab.inference.native.kernels.compiling import Layer as CLayer
from alignlab.inference.native.kernels.compiling import Matrix, Step, address, library
from alignlab.inference.native.kernels.small_matmul import MOST_ROWS, SmallMatmul
from alignlab.inference.native.linears import Layer, Linear, Norm, SideBySide

HALF = {torch.float32: False, torch.bfloat16: True}  # types of a cache that decode_step.c knows
ACTIVATIONS = ("gelu", "gelu_tanh", "silu", "relu")  # in the order of decode_step.c


class FusedStep:
    """Ids (B, 1) and a cache -> logits (B, V), like `last_logits`, which takes over for more than `MOST_ROWS` rows.

    Activations are fp32 throughout, also where weights and cache are bf16. Addresses are taken once: a live model's
    parameters may change in place.
    """

    def __init__(self, decoder: Decoder) -> None:
        a = decoder.architecture
        self._decoder = decoder
        self._kept: list[Tensor] = []  # fp32 copies of small tensors
        self._layers = (CLayer * a.layers)(*(self._layer(layer) for layer in decoder.layers))
        self._tables: tuple[Tensor, Tensor] | None = None
        self._step = Step(
            layer=self._layers,
            layers=a.layers,
            W=a.width,
            H=a.heads,
            G=a.kv_heads,
            D=a.head_dim,
            F=a.inner,
            rotary=0 if a.rotary is None else 2 * len(a.rotary[0]),
            eps=a.eps,
            rms=a.rms_norm,
            activation=ACTIVATIONS.index(a.activation),
            gated=a.gated,
        )

    @classmethod
    def of(cls, decoder: Decoder) -> FusedStep | None:
        """The step of a decoder, or None where it is of another make: interleaved heads, ALiBi, parallel residuals,
        adapters, parts of a model.
        """
        a = decoder.architecture
        strange = a.alibi or a.parallel or a.post_norm_residual or a.qkv_order != "blocks" or decoder.embedding_norm
        if strange or library() is None or not isinstance(decoder.layers, list) or decoder.shard != a.whole():
            return None
        if not all(_ready(layer) for layer in decoder.layers):
            return None
        return cls(decoder)

    def __call__(self, ids: Tensor, cache: Cache) -> Tensor:
        """One step; the cache goes on by a column."""
        decoder, a, step = self._decoder, self._decoder.architecture, self._step
        rows = len(ids)
        if rows > MOST_ROWS:
            return last_logits(decoder, ids, cache)
        x = decoder.embedding(ids[:, 0]).float()
        positions = cache.column - cache.starts
        if decoder.position_embedding is not None:
            x = x + decoder.position_embedding[positions].float()
        x = x.contiguous()
        cosine, sine = self._rotation(positions, cache)
        heads = (a.heads + 2 * a.kv_heads) * a.head_dim
        width = heads + a.heads * a.head_dim + a.inner
        scratch = torch.empty(rows, width, dtype=torch.float32)
        step.qkv = address(scratch, torch.float32, (rows, width), "scratch of a step")
        step.attended = step.qkv + 4 * rows * heads
        step.middle = step.attended + 4 * rows * a.heads * a.head_dim
        step.B, step.column, step.threads = rows, cache.column, torch.get_num_threads()
        step.starts = address(cache.starts, torch.int64, (rows,), "first columns of a cache")
        step.x = address(x, torch.float32, (rows, a.width), "states of a step")
        self._take_cache(cache, rows)
        step.cosine = address(cosine, torch.float32, (rows, step.rotary), "cosines of a step")
        step.sine = address(sine, torch.float32, (rows, step.rotary), "sines of a step")
        library().decode_step(ctypes.byref(step))
        cache.advance(1)
        return decoder.logits(decoder.final_norm(x.to(decoder.final_norm.weight.dtype)))

    def _take_cache(self, cache: Cache, rows: int) -> None:
        """Keys and values by address and strides: rows that left, or padding that was dropped, may leave gaps."""
        step, keys, values = self._step, cache.keys, cache.values
        columns = keys.shape[3]
        wanted = (step.layers, rows, step.G, columns, step.D)
        fine = all(t.shape == wanted and t.device.type == "cpu" and t.stride(-1) == 1 for t in (keys, values))
        if not fine or keys.dtype != values.dtype or keys.dtype not in HALF or keys.stride() != values.stride():
            actual = f"{tuple(keys.shape)}, {tuple(values.shape)} in {keys.dtype}, {values.dtype} on {keys.device}"
            raise ValueError(f"C kernel: keys and values must be {wanted} in fp32 or bf16 on the CPU, and are {actual}")
        if not 0 <= cache.column < columns:
            raise ValueError(f"C kernel: column {cache.column} is outside a cache of {columns}")
        step.keys, step.values, step.half = keys.data_ptr(), values.data_ptr(), HALF[keys.dtype]
        step.at_layer, step.at_row, step.at_head, step.at_column, _ = keys.stride()

    def _rotation(self, positions: Tensor, cache: Cache) -> tuple[Tensor, Tensor] | tuple[None, None]:
        rotary = self._decoder.architecture.rotary
        if rotary is None:
            return None, None
        columns = cache.keys.shape[3]
        if self._tables is None or len(self._tables[0]) < columns:
            self._tables = rotations(*rotary, max(columns, 256), torch.empty(0, dtype=torch.float32))
        cosine, sine = self._tables
        return cosine[positions], sine[positions]

    def _layer(self, layer: Layer) -> CLayer:
        a = self._decoder.architecture
        sizes = [a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.head_dim]
        norms = [*self._norm(layer.norm1), *self._norm(layer.norm2)]
        up = self._matrices(layer.up, [a.inner] * (2 if a.gated else 1))
        up += [] if a.gated else [Matrix()]
        out, down = self._matrices(layer.out, [a.width]), self._matrices(layer.down, [a.width])
        return CLayer(*norms, *self._matrices(layer.qkv, sizes), *out, *up, *down)

    def _matrices(self, linear: Linear, sizes: list[int]) -> list[Matrix]:
        """A linear's matrix cut into rows of these sizes, or its parts as they lie."""
        if isinstance(linear, SideBySide) and len(linear.parts) == len(sizes):
            return [m for part, size in zip(linear.parts, sizes, strict=True) for m in self._matrices(part, [size])]
        small, matrices, start = linear.small, [], 0
        bias = None if small.bias is None else self._keep(small.bias)
        for size in sizes:
            matrices.append(small.matrix(bias, start, start + size))
            start += size
        return matrices

    def _norm(self, norm: Norm) -> tuple[int, int | None]:
        shape = (self._decoder.architecture.width,)
        weight = address(self._keep(norm.weight), torch.float32, shape, "weight of a norm")
        bias = None if norm.bias is None else self._keep(norm.bias)
        return weight, address(bias, torch.float32, shape, "bias of a norm")

    def _keep(self, tensor: Tensor) -> Tensor:
        self._kept.append(tensor.float().contiguous())
        return self._kept[-1]


def _ready(layer: Layer) -> bool:
    """Whether the kernels can do all of a layer, and no adapter is on it."""
    linears = [each for linear in layer.linears().values() for each in getattr(linear, "parts", [linear])]
    whole = all(linear.update is None for linear in [*layer.linears().values(), *linears])
    return whole and all(isinstance(getattr(linear, "small", None), SmallMatmul) for linear in linears)
