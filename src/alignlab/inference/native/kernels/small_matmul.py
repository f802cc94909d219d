"""Matrix products of few rows at the speed of memory on a CPU, by the kernels of `small_matmul.c`.

Legend: B rows of x, N outputs, K inputs.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from alignlab.inference.native.kernels.compiling import Matrix, address, library

MOST_ROWS = 16  # more rows are bound by arithmetic, where torch's own products are as good
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}  # F32, BF16, I8 of small_matmul.c
BOTH_INT8 = 3


def fits(weight: Tensor) -> bool:
    """Whether there is a kernel for this matrix here."""
    return weight.device.type == "cpu" and weight.dtype in KINDS and weight.is_contiguous() and library() is not None


class SmallMatmul:
    """y = x W^T * scale + bias for x of few rows; sums in fp32, whatever W is stored as.

    Args:
        weight: (N, K), contiguous, fp32, bf16 or int8, on the CPU; used by address, so that a live parameter's changes
            are seen.
        scale: (N,) fp32 for int8.
        bias: (N,) or None.
        rounded: round x to int8 too, row by row (absmax): the sums are exact integers then.
    """

    def __init__(
        self, weight: Tensor, scale: Tensor | None = None, bias: Tensor | None = None, rounded: bool = False
    ) -> None:
        assert fits(weight)
        if rounded and (scale is None or weight.dtype != torch.int8):
            raise ValueError(f"C kernel: integer products take an int8 matrix with a scale, and this is {weight.dtype}")
        self.weight, self.scale, self.bias = weight, scale, bias
        self.sums = _sums(weight) if rounded else None
        self.kind = BOTH_INT8 if rounded else KINDS[weight.dtype]
        self._matrix = self.matrix(None)  # the bias of a call is its own

    def matrix(self, bias: Tensor | None, start: int = 0, stop: int | None = None) -> Matrix:
        """Rows of W as the kernels take them; `bias` in fp32."""
        outputs = len(self.weight)
        whole = {"scale": (self.scale, torch.float32), "bias": (bias, torch.float32), "sums": (self.sums, torch.int32)}
        for name, (tensor, dtype) in whole.items():
            address(tensor, dtype, (outputs,), f"{name} of a matrix")
        rows = slice(start, stop)
        parts = [None if t is None else t[rows].data_ptr() for t, _ in whole.values()]
        weight = self.weight[rows]
        place = address(weight, self.weight.dtype, (len(weight), self.weight.shape[1]), "matrix")
        return Matrix(place, *parts, *weight.shape, self.kind)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N) in x's dtype."""
        kernels, matrix = library(), self._matrix
        rows = x.reshape(-1, matrix.K).float().contiguous()
        count, x_place = len(rows), address(rows, torch.float32, rows.shape, "x")
        bias = None if self.bias is None else self.bias.float().contiguous()  # a live one may have changed
        matrix.bias = address(bias, torch.float32, (matrix.N,), "bias")
        rounded = scales = None
        if self.kind == BOTH_INT8:
            rounded = torch.empty(rows.shape, dtype=torch.uint8)
            scales = torch.empty(count, dtype=torch.float32)
        places = [
            address(rounded, torch.uint8, rows.shape, "rounded x"),
            address(scales, torch.float32, (count,), "scales of x"),
        ]
        if self.kind == BOTH_INT8:
            kernels.quantize_rows(x_place, *places, *rows.shape)
        y = torch.empty(count, matrix.N, dtype=torch.float32)
        y_place = address(y, torch.float32, (count, matrix.N), "y")
        kernels.matmul(ctypes.byref(matrix), x_place, *places, y_place, count, torch.get_num_threads())
        return y.view(*x.shape[:-1], matrix.N).to(x.dtype)


def _sums(weight: Tensor) -> Tensor:
    """(N,) int32 sums of int8 rows, part by part: torch widens what it sums."""
    sums = torch.empty(len(weight), dtype=torch.int32)
    count = max(1, 2**18 // weight.shape[1])
    for part, rows in zip(sums.split(count), weight.split(count), strict=True):
        part.copy_(rows.sum(1, dtype=torch.int32))
    return sums
