"""`backend=int8`: every matrix of the blocks and the head in 8 bits with one scale an output."""

from __future__ import annotations

from functools import partial
from typing import Literal

from alignlab.distributed.devices import default_device
from alignlab.inference.native.backend import NativeBackend
from alignlab.inference.native.decoder import Decoder
from alignlab.inference.native.loading import DecoderReader
from alignlab.inference.native.quantization import Int8Embedding, Int8Int8Linear, Int8Linear

MODES = {"weight_only": Int8Linear, "w8a8": Int8Int8Linear}


class Int8Backend(NativeBackend):
    """Quantises each matrix as it is read, so that no more than one is in memory in full precision. Of a live model
    with an adapter the frozen base is copied so, and the adapter is seen as training changes it.

    Args:
        mode: `weight_only` keeps activations as they are (a quarter of fp32's bytes a token, the smallest error);
            `w8a8` rounds them too, row by row, for integer products.
        batch_size: requests that run together.
        device: None takes the GPU if there is one. There a matrix is widened chunk by chunk for `weight_only`, and
            `w8a8` uses torch's integer
            product: right, but no faster than `compiled` in bfloat16; the kernels that are belong to the CPU.
    """

    name = "int8"

    def __init__(
        self,
        mode: Literal["weight_only", "w8a8"] = "weight_only",
        batch_size: int = 32,
        device: str | None = None,
    ) -> None:
        super().__init__(batch_size, device or default_device())
        if mode not in MODES:
            raise ValueError(f"mode={mode} must be one of {', '.join(MODES)}")
        self.mode = mode

    def build(self, reader: DecoderReader) -> Decoder:
        if reader.live and reader.weights.changes:
            raise ValueError(
                "backend=int8 quantises a model's files, or a live model whose adapter alone is trained; this one "
                "changes, use backend=compiled"
            )
        reader.make = partial(MODES[self.mode], device=reader.device)
        reader.make_embedding = partial(Int8Embedding.of, device=reader.device)
        reader.by_rows = not reader.live  # a live adapter's parts stay side by side
        return reader.decoder()
