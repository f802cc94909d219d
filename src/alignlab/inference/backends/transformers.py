"""`backend=transformers`: the library's own `generate`, the yardstick that the others are held against."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignlab.distributed.devices import default_device, sent
from alignlab.inference.backend import Availability, Completion, LoadReport, ModelSource, Request
from alignlab.inference.batches import run_batches
from alignlab.inference.native.backend import ADAPTER, decoding
from alignlab.inference.native.resident import peak_bytes, reset_peak, resident_bytes, storage_bytes
from alignlab.inference.rows import Rows, check_lengths
from alignlab.inference.sampling import AllowedTokens, Sampler, told
from alignlab.inference.source import OpenSource, open_source
from alignlab.models.language.context import context_length
from alignlab.models.language.loading import load_language_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TransformersBackend:
    """Any model that transformers knows, with left padding.

    Tokens are chosen by our `Sampler`, as in every backend, from the logits that `generate` computes: so seeds mean
    the same.

    Args:
        batch_size: requests that run together.
        device: where a model's files go; None takes the GPU if there is one. A live model stays where it is.
    """

    name = "transformers"

    def __init__(self, batch_size: int = 32, device: str | None = None) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        self.batch_size, self.device = batch_size, device or default_device()
        self.opened: OpenSource | None = None
        self.model: PreTrainedModel | None = None
        self._cache_bytes = 0

    def available(self) -> Availability:
        return Availability(True, "runs wherever torch does")

    def load(self, source: ModelSource) -> LoadReport:
        self.close()
        started, before = time.perf_counter(), resident_bytes()
        reset_peak()
        self.opened = open_source(source)
        self.model = source.model if source.model is not None else self.fetch(self.opened).eval()
        if self.opened.adapter is not None:
            self._add_adapter(ADAPTER, self.opened.adapter)
        peak = max(0, peak_bytes() - before)
        seconds = time.perf_counter() - started
        return LoadReport(seconds, self.memory()["weights"], peak, self.model.device.type)

    def fetch(self, opened: OpenSource) -> PreTrainedModel:
        """The base model from its folder."""
        assert opened.folder is not None
        return load_language_model(opened.folder, opened.source.dtype).to(self.device)

    def generate(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int | None = None,
        on_token: Callable[[int, int], None] | None = None,
        on_done: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        model, opened = self._loaded()
        vocabulary = model.config.get_text_config().vocab_size

        def run(rows: Rows, allowed: list[AllowedTokens | None] | None) -> None:
            self._run(model, rows, Sampler(rows.requests, vocabulary, allowed, model.device))

        return run_batches(
            requests,
            run,
            opened,
            batch_size=batch_size or self.batch_size,
            vocabulary=vocabulary,
            max_positions=context_length(model.config),
            on_token=on_token,
            on_done=on_done,
        )

    @torch.no_grad()  # not inference_mode: DeepSpeed moves parameters in between
    def _run(self, model: PreTrainedModel, rows: Rows, sampler: Sampler) -> None:
        from transformers import GenerationConfig

        ids, starts = decoding.left_padded([request.ids for request in rows.requests])
        mask = torch.arange(ids.shape[1]) >= torch.tensor(starts)[:, None]
        choice = _Choice(rows, sampler)
        settings = GenerationConfig(
            max_new_tokens=max(rows.limits),
            do_sample=False,
            pad_token_id=0,
            use_cache=True,
            return_dict_in_generate=True,
        )
        with _evaluating(model), _plain_generation(model):
            output = model.generate(
                sent(ids, model.device),
                attention_mask=sent(mask.long(), model.device),
                generation_config=settings,
                logits_processor=[choice],
                stopping_criteria=[choice.finished],
            )
        self._cache_bytes = max(self._cache_bytes, _cache_bytes(output.past_key_values))

    @torch.no_grad()
    def score(self, sequences: Sequence[list[int]]) -> list[list[float]]:
        model, _ = self._loaded()
        check_lengths(sequences, context_length(model.config))
        with _evaluating(model):
            return [self._score(model, sequence) if len(sequence) > 1 else [] for sequence in sequences]

    def _score(self, model: PreTrainedModel, sequence: list[int]) -> list[float]:
        ids = sent(torch.tensor([sequence]), model.device)
        mask = torch.ones_like(ids)  # without one, BLOOM takes a path that DeepSpeed's split does not reach
        logits = model(ids, attention_mask=mask).logits[0, :-1].float()
        targets = ids[0, 1:, None]
        return (logits.gather(1, targets)[:, 0] - logits.logsumexp(-1)).tolist()

    def set_adapter(self, name: str | None) -> None:
        model, _ = self._loaded()
        if name is None:
            if hasattr(model, "peft_config"):
                _disable(model)
            return
        key = _module_name(name)
        if key not in getattr(model, "peft_config", {}):
            self._add_adapter(key, name)
        _enable(self._loaded()[0], key)

    def _add_adapter(self, key: str, folder: str) -> None:
        from alignlab.models.language.lora import put_on

        model, _ = self._loaded()
        self.model = put_on(model, folder, key).eval()
        _enable(self.model, key)

    def memory(self) -> dict[str, int]:
        model, _ = self._loaded()
        return {
            "weights": storage_bytes(getattr(p, "ds_tensor", p) for p in model.parameters()),  # this rank's, under ZeRO
            "kv_cache": self._cache_bytes,
            "resident": resident_bytes(),
            "peak": peak_bytes(),
        }

    def close(self) -> None:
        self.model = self.opened = None

    def _loaded(self) -> tuple[PreTrainedModel, OpenSource]:
        if self.model is None or self.opened is None:
            raise ValueError(f"backend={self.name} has no model yet; call load first")
        return self.model, self.opened


class _Choice:
    """Logits processor that leaves only the token our sampler chose, and the criterion that knows which rows have
    ended.
    """

    def __init__(self, rows: Rows, sampler: Sampler) -> None:
        self.rows, self.sampler = rows, sampler
        self.running = list(range(len(rows.requests)))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen, logprobs = self.sampler.choose(scores.float(), self.rows.ids)
        tokens, values = told(chosen, logprobs)
        self.running = self.rows.advance(
            self.running, [tokens[row] for row in self.running], [values[row] for row in self.running]
        )
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)

    def finished(self, input_ids: Tensor, scores: Tensor, **unused: object) -> Tensor:
        """(B,): True where a row has ended."""
        done = [row in self.rows.done for row in range(len(self.rows.requests))]
        return sent(torch.tensor(done), input_ids.device)


def _cache_bytes(cache: object) -> int:
    layers = getattr(cache, "layers", [])
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers if getattr(layer, "keys", None) is not None)


def _module_name(adapter: str) -> str:
    """An adapter's name as PEFT can use it: modules' names cannot hold dots."""
    return adapter.replace(".", "_").replace("/", "_")


def _enable(model: PreTrainedModel, key: str) -> None:
    model.base_model.enable_adapter_layers()
    model.set_adapter(key)


def _disable(model: PreTrainedModel) -> None:
    model.base_model.disable_adapter_layers()


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout inside; a live model that trains goes on training afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def _plain_generation(model: PreTrainedModel) -> Iterator[None]:
    """Without the model's own generation settings, with which `generate` would fill up ours."""
    from transformers import GenerationConfig

    holders = [model, model.get_base_model()] if hasattr(model, "get_base_model") else [model]  # PEFT hands its own on
    own = holders[-1].generation_config
    for holder in holders:
        holder.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for holder in holders:
            holder.generation_config = own
