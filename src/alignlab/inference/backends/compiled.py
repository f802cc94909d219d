"""`backend=compiled`: our decode loop over matrices in the layout that the fastest kernel of this machine wants."""

from __future__ import annotations

from alignlab.inference.decoder import Decoder
from alignlab.inference.linears import FastLinear
from alignlab.inference.loading import DecoderReader
from alignlab.inference.native import NativeBackend


class CompiledBackend(NativeBackend):
    """Static cache, fused projections, logits of the last position only, finished rows dropped.

    A live model's parameters are used where they lie, without a copy: PPO's policy is always the current one.
    """

    name = "compiled"

    def build(self, reader: DecoderReader) -> Decoder:
        reader.make = FastLinear
        return reader.decoder()
