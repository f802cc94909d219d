"""`backend=compiled`: our decode loop, the fastest in full precision; a compiled step on a GPU, compiled products of few rows on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from alignlab.inference import decoding
from alignlab.inference.decoder import Cache, Decoder
from alignlab.inference.linears import FastLinear
from alignlab.inference.loading import DecoderReader
from alignlab.inference.native import NativeBackend
from alignlab.inference.rows import Rows
from alignlab.inference.sampling import AllowedTokens


class CompiledBackend(NativeBackend):
    """Preallocated cache, fused projections, logits of the last position only, finished rows dropped.

    A live model's parameters are used where they lie, without a copy: PPO's policy is always the current one.

    Args:
        batch_size: requests that run together; more wait for their turn.
        device: of a model from files; None takes the GPU if there is one.
        compile_step: run a step through torch.compile with CUDA graphs; None does so on a GPU. On a CPU the kernels of `small_matmul.c`
            are faster, and nothing has to be compiled anew for another batch size.
    """

    name = "compiled"

    def __init__(self, batch_size: int = 32, device: str | None = None, compile_step: bool | None = None) -> None:
        super().__init__(batch_size, device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.compile_step = compile_step
        self._compiles, self._states = False, None

    def build(self, reader: DecoderReader) -> Decoder:
        on_gpu = reader.device.type == "cuda"
        self._compiles = on_gpu if self.compile_step is None else self.compile_step
        if not self._compiles:
            reader.make = FastLinear
        return reader.decoder()

    def run(self, rows: Rows, allowed: list[AllowedTokens | None] | None) -> int:
        decoder, _ = self._loaded()
        if not self._compiles:
            return decoding.decode(decoder, rows, allowed)
        if self._states is None:
            mode = "reduce-overhead" if decoder.device.type == "cuda" else "default"
            self._states = torch.compile(decoder.states, mode=mode, dynamic=False)

        def step(ids: Tensor, cache: Cache) -> Tensor:
            states = self._states(ids, cache)
            cache.advance(1)
            return decoder.logits(states[:, -1])

        return decoding.decode(decoder, rows, allowed, step)

    def close(self) -> None:
        self._states = None
        super().close()
