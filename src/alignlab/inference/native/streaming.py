"""Layers that are read from a model's files while the layer before them computes (the idea of BMInf, without its
machine code).

Legend: L layers. A slot is one layer's memory; two slots take turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from alignlab.inference.native.architecture import joined
from alignlab.inference.native.linears import FastLinear, Layer, Norm
from alignlab.inference.native.loading import DecoderReader, Part
from alignlab.inference.native.resident import storage_bytes

PARTS: tuple[Part, ...] = ("qkv", "out", "up", "down")


class Slot:
    """Memory for one layer, and where each tensor of the files goes in it: every layer has the same shapes.

    On a GPU the files are read into memory of the host first, since another thread does it; `arrive` copies on.
    """

    def __init__(self, reader: DecoderReader) -> None:
        self._reader = reader
        self._copies: list[tuple[Tensor, Tensor]] = []  # on the device, on the host
        self._targets: list[tuple[str, Tensor]] = []  # name with {i}, without prefix -> its place
        names = reader.architecture.names
        parts = {part: self._linear(part) for part in PARTS}
        self.layer = Layer(norm1=self._norm(names["norm1"]), norm2=self._norm(names["norm2"]), **parts)

    def fill(self, index: int) -> None:
        """Read layer `index` into place."""
        for template, target in self._targets:
            name = self._reader.full_name(template.format(i=index))
            self._reader.weights.read_into(name, target)

    def arrive(self) -> None:
        """What was read, onto the device; the host waits, as the slot's memory is free for the next layer then."""
        for there, here in self._copies:
            there.copy_(here)

    def _memory(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """For the layer, and for the files: the same on a CPU."""
        here = torch.empty(shape, dtype=self._reader.dtype)
        if self._reader.device.type == "cpu":
            return here, here
        self._copies.append((torch.empty_like(here, device=self._reader.device), here))
        return self._copies[-1]

    def _place(self, name: str, shape: tuple[int, ...]) -> Tensor:
        there, here = self._memory(shape)
        self._targets.append((name, here))
        return there

    def _norm(self, module: str) -> Norm:
        a = self._reader.architecture
        bias = None if a.rms_norm else self._place(module + ".bias", (a.width,))
        return Norm(self._place(module + ".weight", (a.width,)), bias, a.eps)

    def _linear(self, part: Part) -> FastLinear:
        reader, a = self._reader, self._reader.architecture
        pieces = joined(a.pieces(part, reader.shard)[0])
        shapes = [reader.weights.shape(reader.full_name(p.module.format(i=0) + ".weight")) for p in pieces]
        if a.transposed:  # one fused module; the kernel wants (O, I), so this goes through torch's product
            return FastLinear(self._place(pieces[0].module + ".weight", shapes[0]).t(), self._bias(pieces[0].module))
        outputs = [shape[0] for shape in shapes]
        weight, stored = self._memory((sum(outputs), shapes[0][1]))
        self._targets += [
            (piece.module + ".weight", rows) for piece, rows in zip(pieces, stored.split(outputs), strict=True)
        ]
        if reader.full_name(pieces[0].module.format(i=0) + ".bias") not in reader.weights:
            return FastLinear(weight)
        bias, stored = self._memory((sum(outputs),))
        self._targets += [
            (piece.module + ".bias", part) for piece, part in zip(pieces, stored.split(outputs), strict=True)
        ]
        return FastLinear(weight, bias)

    def _bias(self, module: str) -> Tensor | None:
        name = self._reader.full_name(module.format(i=0) + ".bias")
        return self._place(module + ".bias", self._reader.weights.shape(name)) if name in self._reader.weights else None


class StreamedLayers:
    """Yields all layers in order, round after round; those that are not resident are fetched ahead by a thread.

    While one slot computes, the other fills; the first layers of the next round come while the head computes.

    Args:
        reader: of files, not of a live model.
        resident: how many layers stay in memory; they lie evenly between the others, so that fetching overlaps their
            computing too.
    """

    def __init__(self, reader: DecoderReader, resident: int) -> None:
        count = reader.architecture.layers
        kept = {i * count // resident for i in range(resident)}
        self._resident = {index: reader.layer(index) for index in sorted(kept)}
        self._streamed = [index for index in range(count) if index not in kept]
        self._count = count
        self._slots = [Slot(reader) for _ in self._streamed[:2]]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._coming: deque[tuple[int, Slot, Future[None]]] = deque()
        self._turn = 0
        self.install: Callable[[Layer, int], None] | None = None  # puts an adapter onto a layer

    def __iter__(self) -> Iterator[Layer]:
        self._rewind()
        for index in range(self._count):
            slot = None
            if index in self._resident:
                layer = self._resident[index]
            else:
                _, slot, arrived = self._coming.popleft()
                arrived.result()
                slot.arrive()
                layer = slot.layer
            if self.install is not None:
                self.install(layer, index)
            yield layer
            if slot is not None:
                self._fetch(slot)

    def _rewind(self) -> None:
        """Make the first streamed layers come next, also after a round that was broken off."""
        if [index for index, *_ in self._coming] == self._streamed[:2]:
            return
        for _, _, arrived in self._coming:
            arrived.result()
        self._coming.clear()
        self._turn = 0
        for slot in self._slots:
            self._fetch(slot)

    def _fetch(self, slot: Slot) -> None:
        index = self._streamed[self._turn % len(self._streamed)]
        self._turn += 1
        self._coming.append((index, slot, self._thread.submit(slot.fill, index)))

    def tensors(self) -> list[Tensor]:
        """What is in memory: resident layers and the two slots."""
        layers = [*self._resident.values(), *(slot.layer for slot in self._slots)]
        return [tensor for layer in layers for tensor in layer.tensors()]

    def streamed_bytes(self) -> int:
        """Bytes that every round reads."""
        return len(self._streamed) * storage_bytes(self._slots[0].layer.tensors()) if self._slots else 0

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)
