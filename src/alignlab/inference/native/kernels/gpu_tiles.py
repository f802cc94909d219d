"""Matrices of a decode step on a GPU, and how the kernels of `gpu_products.py` cut them up, by their shapes alone.

Legend: N output width, K input width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from alignlab.inference.native.linears import Linear, SideBySide

PROGRAMS = 132  # multiprocessors of an H100 or H200, one program each at least


class Matrix(NamedTuple):
    """Matrices of one input: side by side, or gate and up."""

    weights: list[Tensor]  # (N, K) each
    biases: list[Tensor] | None  # (N,) each

    @property
    def outputs(self) -> int:
        """N of all together."""
        return sum(map(len, self.weights))


class Tiles(NamedTuple):
    """How a product is cut up."""

    outputs: int
    inputs: int
    warps: int = 4
    stages: int = 1


def power(number: int) -> int:
    """The power of two that holds it."""
    return 1 << max(0, number - 1).bit_length()


def one_row_tiles(outputs: int, inputs: int, gated: bool, item: int = 2) -> Tiles:
    """For one row: 8 to 16 KiB of weights on their way in each program, and enough programs for all multiprocessors.

    Args:
        outputs: N, of a gate or of its up.
        item: bytes of a weight.
    """
    if outputs >= 32_768:  # a head: fewer programs, whose results are read once more
        return Tiles(32, 256)
    block_k = min(power(inputs), (2048 if inputs <= 2048 or not gated else 1024) * 2 // item)
    return Tiles(2 if gated and block_k > 1024 else 4, block_k)


def some_rows_tiles(outputs: int, inputs: int, gated: bool) -> Tiles:
    """For up to 16 rows or 32: the tensor cores want 16 by 16, memory wants many tiles on their way."""
    block_n = 32 if outputs >= 64 * PROGRAMS else 16
    return Tiles(block_n, min(128 if gated else 256, power(inputs)), warps=2 if block_n == 16 else 4, stages=4)


def matrix(linear: Linear, sizes: Sequence[int]) -> Matrix:
    """A linear's parts where they lie, or its matrix cut into rows of these sizes."""
    if isinstance(linear, SideBySide):
        biases = [part.bias for part in linear.parts]
        return Matrix([part.weight for part in linear.parts], None if biases[0] is None else biases)
    weights = list(linear.weight.split(list(sizes)))
    return Matrix(weights, None if linear.bias is None else list(linear.bias.split(list(sizes))))
