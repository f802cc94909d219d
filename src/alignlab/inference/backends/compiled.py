"""`backend=compiled`: our decode loop, the fastest in full precision; a step is one CUDA graph on a GPU, one call of C
on a CPU.
"""

from __future__ import annotations

from alignlab.distributed.devices import default_device
from alignlab.inference.native.backend import NativeBackend
from alignlab.inference.native.decoder import Decoder
from alignlab.inference.native.linears import FastLinear
from alignlab.inference.native.loading import DecoderReader


class CompiledBackend(NativeBackend):
    """Preallocated cache, fused projections, logits of the last position only, finished rows dropped.

    A live model's parameters are used where they lie, without a copy: PPO's policy is always the current one.

    Args:
        batch_size: requests that run together; more wait for their turn.
        device: of a model from files; None takes the GPU if there is one.
        compile_step: run steps of fixed shapes at fixed addresses, which become CUDA graphs; None does so on a GPU. On
            a CPU, where nothing becomes of them, the kernels of `small_matmul.c` are faster.
        fuse_step: on a GPU, make such a step of a few Triton kernels a layer where Triton is there and they know the
            architecture (Llama and its like).
    """

    name = "compiled"

    def __init__(
        self,
        batch_size: int = 32,
        device: str | None = None,
        compile_step: bool | None = None,
        fuse_step: bool = True,
    ) -> None:
        super().__init__(batch_size, device or default_device())
        self.compile_step, self.fuse_step = compile_step, fuse_step

    def build(self, reader: DecoderReader) -> Decoder:
        if not (reader.device.type == "cuda" if self.compile_step is None else self.compile_step):
            reader.make = FastLinear
        return reader.decoder()

    def fixes_steps(self, decoder: Decoder) -> bool:
        return super().fixes_steps(decoder) if self.compile_step is None else self.compile_step
