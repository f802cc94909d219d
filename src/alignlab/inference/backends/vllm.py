"""`backend=vllm`: the vLLM engine, for GPUs (extra `vllm`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch

from alignlab.inference.backend import Availability, Completion, LoadReport, ModelSource, Request
from alignlab.inference.native.resident import peak_bytes, resident_bytes
from alignlab.inference.rows import refused
from alignlab.inference.source import OpenSource, open_source
from alignlab.models.language.context import context_length


class VllmBackend:
    """One engine in this process.

    Its random numbers are its own, so sampled tokens differ from the other backends'; log-probabilities are those of
    the chosen tokens as the engine reports them before its filters. Tokens are reported when a request is finished.

    Args:
        memory_share: of the GPU, for weights and cache.
        processes: GPUs to split over.
    """

    name = "vllm"

    def __init__(self, memory_share: float = 0.9, processes: int = 1) -> None:
        self.memory_share, self.processes = memory_share, processes
        self.opened: OpenSource | None = None
        self._engine: Any = None
        self._adapter: str | None = None
        self._weights = 0

    def available(self) -> Availability:
        if find_spec("vllm") is None:
            return Availability(False, "needs vLLM: pip install 'alignlab[vllm]'")
        if not torch.cuda.is_available():
            return Availability(False, "the released vLLM is built for CUDA, which is not here")
        return Availability(True, "vLLM is installed")

    def load(self, source: ModelSource) -> LoadReport:
        availability = self.available()
        if not availability.ok:
            raise ValueError(f"backend=vllm: {availability.reason}")
        if source.model is not None:
            raise ValueError("backend=vllm reads a model's files; a live model cannot be given")
        from vllm import LLM

        started = time.perf_counter()
        self.opened = open_source(source)
        self._adapter = self.opened.adapter
        self._engine = LLM(
            self.opened.folder,
            dtype=source.dtype,
            gpu_memory_utilization=self.memory_share,
            tensor_parallel_size=self.processes,
            enable_lora=self._adapter is not None,
        )
        self._weights = torch.cuda.memory_allocated()
        seconds = time.perf_counter() - started
        return LoadReport(seconds, self._weights, torch.cuda.max_memory_allocated(), "cuda")

    def generate(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int | None = None,
        on_token: Callable[[int, int], None] | None = None,
        on_done: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        engine, opened = self._loaded()
        config = opened.config.get_text_config()
        limit = context_length(config)
        done = refused(requests, config.vocab_size, limit, on_done)
        numbers = [number for number in range(len(requests)) if number not in done]
        prompts = [{"prompt_token_ids": requests[number].ids} for number in numbers]
        settings = [_settings(requests[number], opened.eos) for number in numbers]
        for number, result in zip(numbers, engine.generate(prompts, settings, **self._lora()), strict=True):
            output = result.outputs[0]
            ids = list(output.token_ids)
            logprobs = [step[token].logprob for step, token in zip(output.logprobs, ids, strict=True)]
            ended = output.finish_reason == "stop"
            finish = "length" if not ended else "eos" if ids[-1] in opened.eos else "stop"
            done[number] = Completion(ids, logprobs, finish)
            for token in ids if on_token is not None else ():
                on_token(number, token)
            if on_done is not None:
                on_done(number, done[number])
        return [done[number] for number in range(len(requests))]

    def score(self, sequences: Sequence[list[int]]) -> list[list[float]]:
        from vllm import SamplingParams

        engine, _ = self._loaded()
        prompts = [{"prompt_token_ids": list(sequence)} for sequence in sequences]
        results = engine.generate(prompts, SamplingParams(max_tokens=1, prompt_logprobs=0), **self._lora())
        return [
            [step[token].logprob for step, token in zip(result.prompt_logprobs[1:], sequence[1:], strict=True)]
            for result, sequence in zip(results, sequences, strict=True)
        ]

    def set_adapter(self, name: str | None) -> None:
        _, opened = self._loaded()
        self._adapter = opened.adapter if name == "default" else name

    def memory(self) -> dict[str, int]:
        self._loaded()
        cache = torch.cuda.memory_allocated() - self._weights
        return {"weights": self._weights, "kv_cache": max(0, cache), "resident": resident_bytes(), "peak": peak_bytes()}

    def close(self) -> None:
        self._engine = self.opened = None

    def _lora(self) -> dict[str, Any]:
        if self._adapter is None:
            return {}
        from vllm.lora.request import LoRARequest

        return {"lora_request": LoRARequest(self._adapter, 1, self._adapter)}

    def _loaded(self) -> tuple[Any, OpenSource]:
        if self._engine is None or self.opened is None:
            raise ValueError("backend=vllm has no model yet; call load first")
        return self._engine, self.opened


def _settings(request: Request, eos: frozenset[int]) -> Any:
    """Our sampling in vLLM's words."""
    from vllm import SamplingParams

    s = request.sampling
    return SamplingParams(
        max_tokens=s.max_new_tokens,
        temperature=s.temperature,
        top_k=s.top_k,
        top_p=s.top_p,
        min_p=s.min_p,
        repetition_penalty=s.repetition_penalty,
        stop=list(s.stop) or None,
        stop_token_ids=sorted({*s.stop_ids, *(() if s.ignore_eos else eos)}) or None,
        ignore_eos=s.ignore_eos,
        seed=request.seed,
        logprobs=0,
    )
