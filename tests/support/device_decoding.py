"""Decoding on the pretend CUDA device, as functions that a job calls: replies of every backend, and what its loop waits for."""

from collections.abc import Callable
from pathlib import Path

from alignlab.inference.backend import Backend, ModelSource, Request, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.int8 import Int8Backend
from alignlab.inference.backends.offload import OffloadBackend
from alignlab.inference.backends.transformers import TransformersBackend
from pretend_cuda.device import entered
from pretend_cuda.log import phase
from tiny_models import VOCABULARY, save_adapter, save_model, tiny_model

import torch

BACKENDS: dict[str, Callable[..., Backend]] = {
    "compiled": CompiledBackend,
    "transformers": TransformersBackend,
    "int8": Int8Backend,
    "w8a8": lambda **settings: Int8Backend("w8a8", **settings),
    "offload": lambda **settings: OffloadBackend(0.9, **settings),
}
FILTERED = Sampling(temperature=0.9, top_k=9, top_p=0.9, min_p=0.01, repetition_penalty=1.1)
KINDS = {"greedy": Sampling(), "sampled": Sampling(temperature=1.0), "filtered": FILTERED}
SHORT, LONG = 9, 41


def requests(count: int, sampling: Sampling) -> list[Request]:
    """Prompts of unequal length."""
    generator = torch.Generator().manual_seed(count)
    prompts = [torch.randint(1, VOCABULARY, (1 + 4 * n % 11,), generator=generator).tolist() for n in range(count)]
    return [Request(prompt, seed, sampling) for seed, prompt in enumerate(prompts)]


def replies(folder: Path, kind: str) -> dict[str, dict]:
    """Of every backend by name: where it computes by default, and its tokens and scores there and on a CPU."""
    folder.mkdir(parents=True, exist_ok=True)
    model, adapter = str(save_model(kind, folder / "model")), str(save_adapter(kind, folder / "adapter"))
    asked = [r for s in KINDS.values() for r in requests(3, s._replace(max_new_tokens=10))]
    found = {}
    for name, make in BACKENDS.items():
        for source in [ModelSource(model), *([ModelSource(model, adapter)] if name == "compiled" else [])]:
            with entered(), phase(name):
                backend = make()
                report = backend.load(source)
                there = _replies(backend, asked)
            backend = make(device="cpu")
            assert backend.load(source).device == "cpu"
            key = name if source.adapter is None else f"{name} with an adapter"
            found[key] = {"device": report.device, "there": there, "here": _replies(backend, asked)}
    return found


def _replies(backend: Backend, asked: list[Request]) -> list:
    scores = backend.score([[3, 4, 5, 6], [7, 8, 9]])
    found = [[c.ids for c in backend.generate(asked)], scores]
    backend.close()
    return found


def loop(folder: Path) -> list[int]:
    """Decoding with a live float32 model under the trainer's autocast to bfloat16, each kind and length in a phase; tokens of the last batch."""
    with entered():
        backend = CompiledBackend()
        backend.load(ModelSource("", model=tiny_model("llama").to("cuda")))
        with torch.autocast("cuda", torch.bfloat16):
            backend.generate(requests(4, Sampling(2)))  # what comes once a model
            for name, sampling in KINDS.items():
                for length in (SHORT, LONG):
                    with phase(f"{name} {length}"):
                        backend.generate(requests(4, sampling._replace(max_new_tokens=length, ignore_eos=True)))
            with phase("leaving"):
                stops = Sampling(LONG, temperature=1.0, stop_ids=tuple(range(0, VOCABULARY, 5)))
                left = backend.generate(requests(7, stops))
            with phase("scores"):
                backend.score([[3, 4, 5, 6], [7, 8, 9]])
    return sorted(len(c.ids) for c in left)
