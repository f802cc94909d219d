"""What our own backends share: a decoder, the decode loop in batches, adapters, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch

from alignlab.inference.backend import Availability, Completion, LoadReport, ModelSource, Request
from alignlab.inference.batches import run_batches
from alignlab.inference.native import decoding, fixed_decoding
from alignlab.inference.native.adapters import Adapter, live_adapters, read_adapter, remove
from alignlab.inference.native.decoder import Decoder
from alignlab.inference.native.families import describe
from alignlab.inference.native.fixed_steps import FixedSteps
from alignlab.inference.native.kernels.fused_step import FusedStep
from alignlab.inference.native.loading import DecoderReader
from alignlab.inference.native.resident import peak_bytes, reset_peak, resident_bytes, storage_bytes
from alignlab.inference.rows import Rows, check_lengths
from alignlab.inference.sampling import AllowedTokens
from alignlab.inference.source import OpenSource, open_source

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ADAPTER = "default"  # the source's own


class NativeBackend:
    """A backend around `Decoder`; what differs between them is how `build` makes one.

    Args:
        batch_size: requests that run together; more wait for their turn.
        device: where a model's files go; a live model stays where it is.
    """

    name = "native"
    fuse_step = True

    def __init__(self, batch_size: int = 32, device: str = "cpu") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        self.batch_size, self.device = batch_size, device
        self.opened: OpenSource | None = None
        self.decoder: Decoder | None = None
        self._fused: FusedStep | None = None
        self._steps: FixedSteps | None = None
        self._adapters: dict[str, Adapter] = {}
        self._cache_bytes = 0

    def available(self) -> Availability:
        return Availability(True, "runs wherever torch does")

    def build(self, reader: DecoderReader) -> Decoder:
        """The decoder of this backend."""
        return reader.decoder()

    def load(self, source: ModelSource) -> LoadReport:
        self.close()
        started, before = time.perf_counter(), resident_bytes()
        reset_peak()
        opened = open_source(source)
        architecture = describe(opened.config)
        reader = DecoderReader(opened.weights(), architecture, DTYPES[source.dtype], device=self.device)
        with torch.inference_mode():
            self.decoder = self.build(reader)
        self.opened = opened
        if source.model is not None:
            self._adapters = live_adapters(source.model, architecture)
            self._set(getattr(source.model, "active_adapter", None) if self._adapters else None)
        if opened.adapter is not None:
            self._adapters[ADAPTER] = read_adapter(opened.adapter, architecture, self.decoder.device)
            self._set(ADAPTER)
        if source.model is None and opened.adapter is None:
            self._make_steps()
        peak = max(0, peak_bytes() - before)
        seconds = time.perf_counter() - started
        return LoadReport(seconds, self.memory()["weights"], peak, self.decoder.device.type)

    def generate(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int | None = None,
        on_token: Callable[[int, int], None] | None = None,
        on_done: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        decoder, opened = self._loaded()

        def run(rows: Rows, allowed: list[AllowedTokens | None] | None) -> None:
            self._cache_bytes = max(self._cache_bytes, self.run(rows, allowed))

        with self._own_precision():
            return run_batches(
                requests,
                run,
                opened,
                batch_size=batch_size or self.batch_size,
                vocabulary=decoder.architecture.vocabulary,
                max_positions=decoder.architecture.max_positions,
                on_token=on_token,
                on_done=on_done,
            )

    def run(self, rows: Rows, allowed: list[AllowedTokens | None] | None) -> int:
        """One batch; gives the bytes of its cache.

        Constraints need every token before the next step, so they take the plain loop.
        """
        if self._steps is not None and allowed is None:
            return fixed_decoding.decode(self._steps, rows)
        return decoding.decode(self._loaded()[0], rows, allowed, self._fused)

    def fixes_steps(self, decoder: Decoder) -> bool:
        """Whether steps have fixed addresses: on a GPU, where they become CUDA graphs."""
        return decoder.device.type == "cuda" and isinstance(decoder.layers, list)

    def score(self, sequences: Sequence[list[int]]) -> list[list[float]]:
        decoder, _ = self._loaded()
        check_lengths(sequences, decoder.architecture.max_positions)
        with self._own_precision():
            return decoding.score(decoder, sequences, self.batch_size)

    def set_adapter(self, name: str | None) -> None:
        decoder, _ = self._loaded()
        if name is not None and name not in self._adapters:
            self._adapters[name] = read_adapter(name, decoder.architecture, decoder.device)
        self._set(name)

    def _set(self, name: str | None) -> None:
        decoder, _ = self._loaded()
        for index, layer in enumerate(decoder.layers):
            if name is None:
                remove(layer)
            else:
                self._adapters[name].install(layer, index, decoder.architecture, decoder.shard)
        self._make_steps()

    def _make_steps(self) -> None:
        """What runs a step of the decoder as it is now: an adapter's matrices are part of it."""
        decoder, _ = self._loaded()
        fixed = self.fixes_steps(decoder)
        self._steps = FixedSteps(decoder, self.fuse_step) if fixed else None
        self._fused = None if fixed else FusedStep.of(decoder)

    def _own_precision(self) -> AbstractContextManager:
        """Without the trainer's autocast, which would put bfloat16 into a float32 cache: decoding computes in the
        weights' type.
        """
        return torch.autocast(self._loaded()[0].device.type, enabled=False)

    def memory(self) -> dict[str, int]:
        return {
            "weights": storage_bytes(self._loaded()[0].tensors()),
            "kv_cache": self._cache_bytes,
            "resident": resident_bytes(),
            "peak": peak_bytes(),
        }

    def close(self) -> None:
        self.decoder = self.opened = self._fused = self._steps = None
        self._adapters, self._cache_bytes = {}, 0

    def _loaded(self) -> tuple[Decoder, OpenSource]:
        if self.decoder is None or self.opened is None:
            raise ValueError(f"backend={self.name} has no model yet; call load first")
        return self.decoder, self.opened
