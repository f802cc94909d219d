"""A step of the decode loop on a GPU as a few Triton kernels a layer, which a CUDA graph holds: five for one row, where
torch's own operations are two dozen.

Legend: R rows, W model width, H query heads, G key heads, D head width, F inner width of the MLP, V vocabulary, C
columns that a step looks at.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignlab.inference.native.architecture import Architecture
from alignlab.inference.native.kernels import gpu_attention as around
from alignlab.inference.native.kernels import gpu_products as products
from alignlab.inference.native.kernels.gpu_tiles import (
    PROGRAMS,
    Matrix,
    floats,
    matrix,
    one_row_tiles,
    power,
    some_rows_tiles,
)
from alignlab.inference.native.linears import FastLinear, Layer, Linear, SideBySide

if TYPE_CHECKING:
    from alignlab.inference.native.decoder import Decoder, FixedCache

TYPES = (torch.bfloat16, torch.float32)
KINDS = {"silu": products.SILU, "gelu_tanh": products.GELU_TANH, "gelu": products.GELU, "relu": products.RELU}
MOST_ROWS = 16  # of products of our own on the tensor cores; cuBLAS is better at more
MOST_SHARED = 4096  # tiles whose inputs several programs share
THREADS = 8  # that compile kernels
log = logging.getLogger(__name__)


class GpuStep:
    """Ids (R, 1) and a cache of fixed addresses -> logits (R, V), or the next ids.

    Weights are taken by address once: a live model's parameters may change in place.
    """

    def __init__(self, decoder: Decoder) -> None:
        a = decoder.architecture
        self._decoder, self._a = decoder, a
        self.dtype, self.usable = decoder.final_norm.weight.dtype, True
        sizes = [a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.head_dim]
        self._layers = [
            (
                layer.norm1.weight,
                matrix(layer.qkv, sizes),
                matrix(layer.out, [a.width]),
                layer.norm2.weight,
                matrix(layer.up, [a.inner, a.inner]),
                matrix(layer.down, [a.width]),
            )
            for layer in decoder.layers
        ]
        self._head = matrix(decoder.head, [a.vocabulary])
        self._real, self._rehearsing = decoder.device.type == "cuda", False
        self._rehearsed: set[tuple] = set()
        self.ahead = self._real and torch.cuda.get_device_capability(decoder.device) >= (9, 0)
        self.crowd, self.norm_apart = 2 * PROGRAMS, a.width >= 1024  # a wide norm isn't for every program to repeat
        self._arrived = torch.zeros(MOST_SHARED, dtype=torch.int32, device=decoder.device)  # always left at zero
        self.most_rows = MOST_ROWS if self.dtype == torch.bfloat16 else 1  # fp32 stays fp32: no tensor cores

    @classmethod
    def of(cls, decoder: Decoder) -> GpuStep | None:
        """The step of a decoder, or None where there is no Triton, or the decoder is of another make: LayerNorm, ALiBi,
        interleaved heads, parallel residuals, adapters, 8 bits, parts of a model.
        """
        a, device = decoder.architecture, decoder.device.type
        interpreted = device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"  # for tests
        if products.triton is None or not (device == "cuda" or interpreted) or not _known(a):
            return None
        if not isinstance(decoder.layers, list) or decoder.shard != a.whole() or decoder.embedding_norm is not None:
            return None
        dtype = decoder.final_norm.weight.dtype
        tensors = [*decoder.head.tensors(), decoder.embedding.weight, decoder.final_norm.weight]
        tensors += [tensor for layer in decoder.layers for tensor in layer.tensors()]
        plain = all(t.dtype == dtype and t.is_contiguous() and t.device == decoder.device for t in tensors)
        if dtype not in TYPES or not plain or not all(_plain(layer) for layer in decoder.layers):
            return None
        return cls(decoder) if type(decoder.head) in (Linear, FastLinear) and decoder.head.update is None else None

    def _tried(self, step: Callable[[], None], cache: FixedCache) -> bool:
        """Runs a step of these kernels; False where they don't compile or run here, which is said once.

        The first of each shape is rehearsed, so that all its kernels are compiled at the same time.
        """
        if not self.usable:
            return False
        shape = (*cache.keys.shape[1:4:2], step.__code__)  # rows, columns, logits or choice
        try:
            if self._real and shape not in self._rehearsed:
                self._rehearse(step)
                self._rehearsed.add(shape)
            step()
        except Exception as error:  # Triton's errors have no class in common
            self.usable = False
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.warning("decoding without Triton kernels, slower: %s: %s", type(error).__name__, reason)
        return self.usable

    def _rehearse(self, step: Callable[[], None]) -> None:
        """Compiles what a step launches without launching it, each kernel in a thread of its own."""
        together = getattr(products.triton, "AsyncCompileMode", None)
        if together is None:  # before Triton 3.5
            return
        self._rehearsing = True
        try:
            with ThreadPoolExecutor(THREADS) as threads, together(threads):
                step()
        finally:
            self._rehearsing = False

    def logits(self, ids: Tensor, cache: FixedCache) -> Tensor | None:
        """(R, 1) -> (R, V) in fp32; key and value are written to the cache. None where that failed."""
        out = torch.empty(len(ids), self._a.vocabulary, dtype=self.dtype, device=ids.device)
        return out.float() if self._tried(lambda: self._logits(ids, cache, out), cache) else None

    def _logits(self, ids: Tensor, cache: FixedCache, out: Tensor) -> None:
        nobodys = torch.empty(2, dtype=torch.long, device=ids.device)
        x = self._embedded(ids, cache, nobodys[:1], nobodys[1:])
        self._through(x, cache)
        self._product(self._head, x, out, self._decoder.final_norm.weight)

    def likeliest(self, ids: Tensor, cache: FixedCache, count: Tensor, told: Tensor) -> bool:
        """The same, and the choice of greedy rows: the likeliest token and its log-probability at place `count` of
        `told`, the token in `ids`, `count` and the cache's column one further. False where that failed.
        """
        return self._tried(lambda: self._likeliest(ids, cache, count, told), cache)

    def _likeliest(self, ids: Tensor, cache: FixedCache, count: Tensor, told: Tensor) -> None:
        rows, now = len(ids), torch.empty_like(count)
        x = self._embedded(ids, cache, count, now)
        self._through(x, cache)
        vocabulary, gain = self._a.vocabulary, self._decoder.final_norm.weight
        if rows <= self.most_rows:
            best = self._product(self._head, x, None, gain)
        else:
            logits, parts = x.new_empty(rows, vocabulary), math.ceil(vocabulary / 4096)
            self._product(self._head, x, logits, gain)
            best = floats(rows, 3, parts, device=x.device)
            self._launch(around.bests, (rows, parts), logits, best, vocabulary, BLOCK=4096, AHEAD=self.ahead)
        self._launch(
            around.take, (rows,), best, ids, told, cache.at, now, best.shape[2], vocabulary, told.shape[1],
            BLOCK=1024, AHEAD=self.ahead,
        )  # fmt: skip

    def _embedded(self, ids: Tensor, cache: FixedCache, count: Tensor, now: Tensor) -> Tensor:
        width, rows = self._a.width, len(ids)
        x = torch.empty(rows, width, dtype=self.dtype, device=ids.device)
        table = self._decoder.embedding.weight
        # without AHEAD: whatever wrote weights and ids before has ended when this and so all others begin
        self._launch(around.embed, (rows, math.ceil(width / 1024)), ids, table, x, count, now, width, BLOCK=1024)
        return x

    def _through(self, x: Tensor, cache: FixedCache) -> None:
        """All blocks, (R, W) in place."""
        a, rows = self._a, len(x)
        cosine, sine = self._decoder.rotation_tables(cache)
        qkv = x.new_empty(rows, (a.heads + 2 * a.kv_heads) * a.head_dim)
        attended = x.new_empty(rows, a.heads * a.head_dim)
        middle = x.new_empty(rows, a.inner)
        layers = self._layers[:1] if self._rehearsing else self._layers
        for index, (norm1, qkv_matrix, out, norm2, up, down) in enumerate(layers):
            self._product(qkv_matrix, x, qkv, norm1)
            self._attend(qkv, cache.keys[index], cache.values[index], cache, cosine, sine, attended)
            self._product(out, attended, x, add=True)
            self._product(up, x, middle, norm2, gated=True)
            self._product(down, middle, x, add=True)

    def _product(
        self,
        matrix: Matrix,
        x: Tensor,
        y: Tensor | None,
        gain: Tensor | None = None,
        add: bool = False,
        gated: bool = False,
    ) -> Tensor:
        """y = x W^T (+ y), after a norm, before a gate; without y the bests of each program."""
        rows, inputs, (w, b) = *x.shape, matrix
        if rows > self.most_rows:
            self._by_torch(matrix, x, y, gain, add, gated)
            return y
        if rows > 1 and gain is not None and self.norm_apart:
            x, gain = self._normed(x, gain), None
        counts = [len(each) for each in w]
        outputs = counts[0] if gated else sum(counts)
        tiles = (
            one_row_tiles(outputs, inputs, gated, x.itemsize) if rows == 1 else some_rows_tiles(outputs, inputs, gated)
        )
        programs = math.ceil(counts[0] / tiles.outputs) if gated else sum(math.ceil(n / tiles.outputs) for n in counts)
        best = floats(rows, 3, programs, device=x.device) if y is None else x
        addresses = [*w, *[w[0]] * (3 - len(w)), *(w if b is None else b), *[w[0]] * (3 - len(w))]
        flags = {
            "NORM": gain is not None, "GATED": gated, "ADD": add, "BIAS": b is not None, "BEST": y is None,
            "KIND": KINDS[self._a.activation], "PARTS": 1 if gated else len(w),
            "BLOCK_N": tiles.outputs, "BLOCK_K": tiles.inputs, "AHEAD": self.ahead,
        }  # fmt: skip
        numbers = [*counts, 0, 0][:3]
        common = [x, w[0] if gain is None else gain, *addresses, best if y is None else y, best]
        eps, options = self._a.eps, {"num_warps": tiles.warps, "num_stages": tiles.stages}
        if rows == 1:
            flags["ONCE"] = inputs <= tiles.inputs
            self._launch(products.one_row, (programs,), *common, inputs, *numbers, eps, **flags, **options)
        else:
            stride, block, split = 0 if y is None else y.shape[1], max(16, rows), tiles.split
            # few programs that come ahead would crowd on the multiprocessors that are free first
            flags |= {"BLOCK_R": block, "SPLIT": split, "AHEAD": self.ahead and programs * split >= self.crowd}
            sums = floats(programs * split * 3 * block * tiles.outputs if split > 1 else 1, device=x.device)
            self._launch(
                products.some_rows, (programs, split),
                *common, sums, self._arrived, rows, inputs, *numbers, stride, eps, **flags, **options,
            )  # fmt: skip
        return best if y is None else y

    def _normed(self, x: Tensor, gain: Tensor) -> Tensor:
        width, y = x.shape[1], torch.empty_like(x)
        self._launch(around.norm, (len(x),), x, gain, y, width, self._a.eps, BLOCK=power(width), AHEAD=self.ahead)
        return y

    def _by_torch(self, matrix: Matrix, x: Tensor, y: Tensor, gain: Tensor | None, add: bool, gated: bool) -> None:
        """The same by cuBLAS, norm and gate by kernels."""
        rows, (w, b) = len(x), matrix
        x = x if gain is None else self._normed(x, gain)
        if add:
            y.addmm_(x, w[0].t()) if b is None else y.addmm_(x, w[0].t()).add_(b[0])
            return
        target = x.new_empty(rows, matrix.outputs) if gated else y
        start = 0
        for place, each in enumerate(w):
            out = target[:, start : start + len(each)]
            torch.mm(x, each.t(), out=out) if b is None else torch.addmm(b[place], x, each.t(), out=out)
            start += len(each)
        if gated:
            inner, kind = y.shape[1], KINDS[self._a.activation]
            blocks = math.ceil(inner / 1024)
            self._launch(around.gate, (rows, blocks), target, y, inner, KIND=kind, BLOCK=1024, AHEAD=self.ahead)

    def _attend(
        self, qkv: Tensor, keys: Tensor, values: Tensor, cache: FixedCache, cosine: Tensor, sine: Tensor, out: Tensor
    ) -> None:
        a, rows, columns = self._a, len(qkv), keys.shape[2]
        size, group, width = a.head_dim, a.heads // a.kv_heads, max(16, power(a.head_dim))
        exact = self.dtype == torch.float32
        # a part reads at least 64 KiB of keys: fewer don't pay for the kernel that puts parts together
        parts = max(1, min(PROGRAMS // (rows * a.kv_heads), columns * size // 32_768))
        if parts > 1:
            pieces = floats(parts, rows, a.heads, size, device=qkv.device)
            sums = floats(parts, rows, a.heads, 2, device=qkv.device)
        else:
            pieces = sums = out
        self._launch(
            around.attention, (rows, a.kv_heads, parts),
            qkv, keys, values, cache.starts, cache.at, cosine, sine, pieces, sums, size**-0.5, columns,
            keys.stride(0), keys.stride(1), a.heads, a.kv_heads,
            D=size, WIDTH=width, ROTARY=cosine.shape[1], GROUP=group, BLOCK_G=max(16, power(group)),
            BLOCK_C=32 if exact else 128 if width <= 64 else 64, SPLIT=parts > 1, EXACT=exact, AHEAD=self.ahead,
            num_warps=4, num_stages=2,
        )  # fmt: skip
        if parts > 1:
            self._launch(
                around.combine, (rows * a.heads,), pieces, sums, out, parts, D=size, WIDTH=width, AHEAD=self.ahead,
                num_warps=1,
            )  # fmt: skip

    def _launch(self, kernel: object, grid: tuple[int, ...], *arguments: object, **options: object) -> None:
        if options.get("AHEAD"):
            options["launch_pdl"] = True
        if self._rehearsing:
            kernel.warmup(*arguments, grid=grid, **options)
        else:
            kernel[grid](*arguments, **options)


def _known(a: Architecture) -> bool:
    """Llama and its like."""
    strange = a.alibi or a.parallel or a.post_norm_residual or "positions" in a.names
    return a.rms_norm and a.gated and a.rotary is not None and a.qkv_order == "blocks" and not strange


def _plain(layer: Layer) -> bool:
    """Whether no adapter is on a layer, and biases are all there or not at all."""
    for linear in layer.linears().values():
        parts = linear.parts if isinstance(linear, SideBySide) else [linear]
        plain = all(type(part) in (Linear, FastLinear) and part.update is None for part in parts)
        if not plain or linear.update is not None or len({part.bias is None for part in parts}) > 1:
            return False
    return True
