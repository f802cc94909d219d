"""`backend=offload`: a share of the weights stays in memory, the other layers are read from disk (or its cache) while
computing goes on.
"""

from __future__ import annotations

import logging

from alignlab.distributed.devices import default_device
from alignlab.inference.native.adapters import remove
from alignlab.inference.native.architecture import Architecture
from alignlab.inference.native.backend import NativeBackend
from alignlab.inference.native.decoder import Decoder
from alignlab.inference.native.linears import FastLinear, Layer
from alignlab.inference.native.loading import DecoderReader
from alignlab.inference.native.streaming import StreamedLayers

log = logging.getLogger(__name__)


class OffloadBackend(NativeBackend):
    """Every pass over the model reads the layers that are not resident, once for the whole batch.

    A token therefore takes at least `memory()["streamed"]` bytes over the speed at which files are read.

    Args:
        resident: share of all weights in memory. Embedding, head and two layers' buffers are counted first; they are
            the least.
        batch_size: requests that run together, and so share a reading.
        device: that computes; None takes the GPU if there is one. A layer is then read into memory of the host and
            copied from there.
    """

    name = "offload"

    def __init__(self, resident: float = 0.25, batch_size: int = 32, device: str | None = None) -> None:
        super().__init__(batch_size, device or default_device())
        if not 0 <= resident <= 1:
            raise ValueError(f"resident={resident} must be between 0 and 1")
        self.resident = resident

    def build(self, reader: DecoderReader) -> Decoder:
        if reader.live:
            raise ValueError(
                "backend=offload streams a model's files; a live model is in memory already, use backend=compiled"
            )
        reader.make = FastLinear
        a, size = reader.architecture, reader.dtype.itemsize
        layer = layer_parameters(a) * size
        fixed = a.vocabulary * a.width * size * (1 if reader.head_name() is None else 2)
        room = self.resident * (fixed + a.layers * layer) - fixed - 2 * layer
        count = min(a.layers, max(0, int(room / layer)))
        if self.resident == 1:
            count = a.layers
        if room < 0:
            least = (fixed + 2 * layer) / (fixed + a.layers * layer)
            log.warning("resident=%s is below what must stay in memory; it is %.0f %%", self.resident, 100 * least)
        return reader.decoder(StreamedLayers(reader, count))

    def _set(self, name: str | None) -> None:
        decoder, _ = self._loaded()
        adapter = None if name is None else self._adapters[name]

        def install(layer: Layer, index: int) -> None:
            if adapter is None:
                remove(layer)
            else:
                adapter.install(layer, index, decoder.architecture, decoder.shard)

        decoder.layers.install = install

    def memory(self) -> dict[str, int]:
        """As of every backend, and the bytes that each pass streams."""
        return super().memory() | {"streamed": self._loaded()[0].layers.streamed_bytes()}

    def close(self) -> None:
        if self.decoder is not None:
            self.decoder.layers.close()
        super().close()


def layer_parameters(a: Architecture) -> int:
    """Numbers in the matrices of one block."""
    attention = a.width * a.head_dim * (2 * a.heads + 2 * a.kv_heads)
    return attention + a.width * a.inner * (3 if a.gated else 2)
