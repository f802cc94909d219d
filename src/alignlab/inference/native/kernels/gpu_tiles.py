"""Matrices of a decode step on a GPU, and how the kernels of `gpu_products.py` cut them up, by their shapes alone.

Legend: N output width, K input width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
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


def floats(*shape: int, device: torch.device) -> Tensor:
    """Memory for fp32, whatever the default type is."""
    return torch.empty(shape, dtype=torch.float32, device=device)


class Tiles(NamedTuple):
    """How a product is cut up; `split`: programs that share the inputs of the same outputs."""

    outputs: int
    inputs: int
    warps: int = 4
    stages: int = 1
    split: int = 1


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
    if gated and item == 2 and 1024 < inputs <= 2048 and outputs >= 16 * PROGRAMS:  # all programs read the whole row
        return Tiles(8, 512)
    block_k = min(power(inputs), (2048 if inputs <= 2048 or not gated else 1024) * 2 // item)
    return Tiles(2 if gated and block_k > 1024 else 4, block_k)


def some_rows_tiles(outputs: int, inputs: int, gated: bool) -> Tiles:
    """For up to 16 rows or 32: 16 KiB of weights a stage, three stages on their way, and two to four programs a
    multiprocessor, by sharing the inputs where outputs are few.

    Every program reads its inputs of all rows, so that many outputs a program spare the cache between them.
    """
    block_n = 64 if outputs >= 32_768 else 32
    block_k = min(128 if gated or block_n == 64 or inputs < 1024 else 256, power(inputs))
    programs, split = math.ceil(outputs / block_n), 1
    while programs * split < 2 * PROGRAMS and 2 * split * block_k < inputs and split < 8:
        split *= 2
    return Tiles(block_n, block_k, 4, 4, split)


def matrix(linear: Linear, sizes: Sequence[int]) -> Matrix:
    """A linear's parts where they lie, or its matrix cut into rows of these sizes."""
    if isinstance(linear, SideBySide):
        biases = [part.bias for part in linear.parts]
        return Matrix([part.weight for part in linear.parts], None if biases[0] is None else biases)
    weights = list(linear.weight.split(list(sizes)))
    return Matrix(weights, None if linear.bias is None else list(linear.bias.split(list(sizes))))
