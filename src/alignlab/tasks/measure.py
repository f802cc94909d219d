"""Speed, memory and agreement of one backend, in this process; `task=benchmark` starts it for each.

Legend: B requests, P prompt tokens, T new tokens.
"""

import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from alignlab.cost.roofline import cache_bytes, read_bandwidth
from alignlab.distributed.devices import default_device
from alignlab.files.text import parse_json, read_text
from alignlab.files.writing import write_text
from alignlab.inference.backend import Backend, Request, Sampling
from alignlab.inference.native.resident import peak_bytes
from alignlab.models.language.paths import resolve_model
from alignlab.tasks.job import Job, Subject
from alignlab.tasks.sample_texts import TEXTS

_BYTES = {"float32": 4, "bfloat16": 2}


class Measure:
    """Times generation, weighs memory, and compares tokens and log-probabilities with the yardstick's.

    Args:
        batch_sizes: requests at a time.
        prompt_tokens, new_tokens: P and T of every timed request; EOS doesn't end them.
        repeats: timed runs; medians are kept. One run of each batch size goes before, untimed.
        yardstick: agreement.json of another backend's run, to compare with; None writes one only.
        bandwidth: bytes per second of the memory of the device that programs use by default; None measures it, as does
            a backend on another one.
    """

    needs = "backend"

    def __init__(
        self,
        batch_sizes: Sequence[int] = (1, 8, 32),
        prompt_tokens: int = 64,
        new_tokens: int = 32,
        repeats: int = 3,
        yardstick: str | None = None,
        bandwidth: float | None = None,
    ) -> None:
        for key, value, least in (
            ("batch_sizes", min(batch_sizes, default=0), 1),
            ("prompt_tokens", prompt_tokens, 2),
            ("new_tokens", new_tokens, 2),
            ("repeats", repeats, 1),
        ):
            if value < least:
                raise ValueError(f"{key} is {value}; it must be at least {least}")
        self.batch_sizes, self.prompt_tokens, self.new_tokens = list(batch_sizes), prompt_tokens, new_tokens
        self.repeats, self.yardstick, self.bandwidth = repeats, yardstick, bandwidth

    def run(self, subject: Subject, job: Job) -> dict[str, float]:
        limit, length = subject.context_length, self.prompt_tokens + self.new_tokens
        if limit is not None and length > limit:
            raise ValueError(
                f"prompt_tokens={self.prompt_tokens} and new_tokens={self.new_tokens} are {length} tokens;"
                f" this model's context has {limit}"
            )
        measured = {"load_seconds": subject.loaded.seconds, "weight_bytes": float(subject.loaded.weight_bytes)}
        ids = [id for text in TEXTS for id in subject.tokenizer(text, add_special_tokens=False)["input_ids"]]
        for size in self.batch_sizes:
            try:
                measured |= self.speed(subject.backend, ids, size)
            except (RuntimeError, MemoryError) as error:  # too large for the memory: the smaller ones still count
                job.console.print(f"batch of {size}: {str(error).splitlines()[0]}", markup=False)
        measured |= self.memory(subject, job)
        measured |= self.agreement(subject, job.run_dir)
        own = None if subject.loaded.device != default_device() else self.bandwidth
        bandwidth = own or read_bandwidth(device=subject.loaded.device)
        floor = 1000 * measured["weight_bytes"] / bandwidth
        measured |= {"bandwidth_bytes_per_second": bandwidth, "floor_ms_per_token": floor}
        if measured.get("batch_1_ms_per_token") and floor:
            measured["roofline_fraction"] = floor / measured["batch_1_ms_per_token"]
        return measured

    def speed(self, backend: Backend, ids: list[int], size: int) -> dict[str, float]:
        """Time to the first token (a run of one token), ms for each further one, and tokens per second of all
        requests.
        """
        prompts = [_cut(ids, 7 * number, self.prompt_tokens) for number in range(size)]
        first, whole = [], []
        for repeat in range(self.repeats + 1):
            seconds = [_timed(backend, prompts, tokens) for tokens in (1, self.new_tokens)]
            if repeat:
                first.append(seconds[0])
                whole.append(seconds[1])
        start, total = statistics.median(first), statistics.median(whole)
        return {
            f"batch_{size}_first_token_ms": 1000 * start,
            f"batch_{size}_ms_per_token": 1000 * max(0.0, total - start) / (self.new_tokens - 1),
            f"batch_{size}_tokens_per_second": size * self.new_tokens / total,
        }

    def memory(self, subject: Subject, job: Job) -> dict[str, float]:
        """The most memory used since before loading, beside the formula: weights plus the cache of
        the largest batch.
        """
        told = subject.backend.memory()
        host = max(peak_bytes(), told.get("peak", 0)) - subject.resident_before  # "peak" may count other processes too
        measured = {"peak_host_bytes": float(host), "load_peak_bytes": float(subject.loaded.peak_bytes)}
        if subject.loaded.device == "cuda":
            measured["peak_gpu_bytes"] = float(torch.cuda.max_memory_allocated())
        if job.model is not None:
            tokens = self.prompt_tokens + self.new_tokens
            cache = cache_bytes(_config(job.model), max(self.batch_sizes), tokens, _BYTES[subject.dtype])
            measured["formula_bytes"] = float(subject.loaded.weight_bytes + cache)
            most = measured.get("peak_gpu_bytes", measured["peak_host_bytes"])
            measured["peak_over_formula"] = most / max(1.0, measured["formula_bytes"])
        return measured

    def agreement(self, subject: Subject, run_dir: Path) -> dict[str, float]:
        """Greedy tokens of five prompts of unequal length, log-probabilities of the yardstick's
        sequences, perplexity.
        """
        tokenizer, limit = subject.tokenizer, (subject.context_length or 10**9) - self.new_tokens
        texts = [tokenizer(text, add_special_tokens=False)["input_ids"][:limit] for text in TEXTS]
        prompts = [ids[: 8 + 5 * number] for number, ids in enumerate(texts)]
        sampling = Sampling(max_new_tokens=self.new_tokens)
        tokens = [c.ids for c in subject.backend.generate([Request(ids, 0, sampling) for ids in prompts])]
        reference = (
            parse_json(read_text(self.yardstick, "yardstick"), f"yardstick={self.yardstick}")
            if self.yardstick
            else None
        )
        sequences = reference["sequences"] if reference else [p + t for p, t in zip(prompts, tokens, strict=True)]
        logprobs = subject.backend.score(sequences)
        per_text = subject.backend.score(texts)
        perplexity = math.exp(-math.fsum(map(math.fsum, per_text)) / sum(map(len, per_text)))
        held = {"sequences": sequences, "tokens": tokens, "logprobs": logprobs, "perplexity": perplexity}
        write_text(run_dir / "agreement.json", json.dumps(held))
        if reference is None:
            return {"perplexity": perplexity}
        pairs = list(zip(tokens, reference["tokens"], strict=True))
        differences = [
            abs(a - b)
            for mine, theirs in zip(logprobs, reference["logprobs"], strict=True)
            for a, b in zip(mine, theirs, strict=True)
        ]
        return {
            "perplexity": perplexity,
            "perplexity_change": perplexity / reference["perplexity"] - 1,
            "same_tokens": sum(_shared(mine, theirs) for mine, theirs in pairs) / sum(len(b) for _, b in pairs),
            "largest_logprob_difference": max(differences),
        }


def _timed(backend: Backend, prompts: list[list[int]], tokens: int) -> float:
    sampling = Sampling(max_new_tokens=tokens, ignore_eos=True)
    started = time.perf_counter()
    done = backend.generate([Request(ids, 0, sampling) for ids in prompts], batch_size=len(prompts))
    seconds = time.perf_counter() - started
    for completion in done:
        if completion.finish == "error":
            raise RuntimeError(completion.error)
    return seconds


def _cut(ids: list[int], start: int, length: int) -> list[int]:
    """`length` ids from a place on, round and round."""
    return [ids[(start + place) % len(ids)] for place in range(length)]


def _shared(one: list[int], other: list[int]) -> int:
    """Tokens before the two part ways."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _config(model: str) -> object:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(resolve_model(model)[0], trust_remote_code=False).get_text_config()
