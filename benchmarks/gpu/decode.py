"""Decoding random Llamas in bfloat16: tokens/s, share of the bandwidth floor, first token, beside transformers' static cache. A part of `make gpu`."""

import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from alignlab.inference.backend import ModelSource, Request, Sampling
from alignlab.inference.backends.compiled import CompiledBackend

import torch
from measuring import wait
from rows import Rows, options
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES = {
    "tiny": (512, 64, 128, 2, 4, 2),
    "135M": (49_152, 576, 1536, 30, 9, 3),
    "1B": (128_256, 2048, 8192, 16, 32, 8),
    "8B": (128_256, 4096, 14_336, 32, 32, 8),
}  # vocabulary, width, inner, layers, heads, key heads
Run = Callable[[int], None]


def llama(name: str, device: str) -> LlamaForCausalLM:
    """A random model in bfloat16."""
    vocabulary, width, inner, layers, heads, key_heads = SHAPES[name]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def bandwidth(device: str) -> float:
    """Bytes a second, read and written, of the best of ten copies of 1 GiB (CPU: 16 MiB)."""
    source = torch.zeros(2**30 if device == "cuda" else 2**24, dtype=torch.int8, device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(10):
        wait(device)
        started = time.perf_counter()
        target.copy_(source)
        wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * source.nbytes / best


def rate(run: Run, batch: int, new: int, device: str, turns: int, before: int = 1) -> float:
    """Tokens a second, prompt included in the time; the turns `before` don't count."""
    for _ in range(before):
        run(batch)
    times = []
    for _ in range(turns):
        wait(device)
        started = time.perf_counter()
        run(batch)
        wait(device)
        times.append(time.perf_counter() - started)
    return batch * new / statistics.median(times)


def ours(model: LlamaForCausalLM, ids: list[int], new: int, device: str) -> tuple[Run, Callable[[], float]]:
    """Our decoding, and seconds to the first token."""
    backend = CompiledBackend(batch_size=64, device=device)
    backend.load(ModelSource(path="live", model=model, dtype="bfloat16"))
    request = Request(ids, sampling=Sampling(max_new_tokens=new, ignore_eos=True))

    def first() -> float:
        times: list[float] = []
        started = time.perf_counter()
        backend.generate([request], on_token=lambda number, token: times.append(time.perf_counter()))
        return times[0] - started

    return lambda batch: backend.generate([request] * batch), first


def static_cache(model: LlamaForCausalLM, ids: list[int], new: int, device: str, compiled: bool) -> Run:
    """transformers' generate with a static cache, compiled as it does by default, or not."""
    more = {"cache_implementation": "static", "disable_compile": not compiled}

    def run(batch: int) -> None:
        x = torch.tensor([ids] * batch, device=device)
        with torch.inference_mode():
            model.generate(
                x,
                attention_mask=torch.ones_like(x),
                do_sample=False,
                max_new_tokens=new,
                min_new_tokens=new,
                pad_token_id=0,
                **more,
            )

    return run


def measured(rows: Rows, name: str, device: str, bytes_a_second: float, deadline: float) -> None:
    """All numbers of one shape."""
    full = device == "cuda"
    new, prompt, turns = (128, 32, 3) if full else (6, 4, 1)
    model = llama(name, device)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    floor = bytes_a_second / weights  # tokens a second of one row
    ids = torch.randint(3, SHAPES[name][0], (prompt,), generator=torch.Generator().manual_seed(1)).tolist()
    run, first = ours(model, ids, new, device)
    started = first()
    rows.add(
        "first token of the process" if name in ("135M", "tiny") else f"first token {name}, not warm", started, "s"
    )
    rows.add(f"first token {name}, warm", statistics.median(first() for _ in range(turns)) * 1e3, "ms")
    found = {}
    for batch in (1, 8, 32):
        with rows.attempt(f"decode {name}, batch {batch}"):
            found[batch] = rate(run, batch, new, device, turns, before=3)  # prompts are recorded at their third use
            rows.add(f"decode {name}, batch {batch}", found[batch], "tokens/s")
    if 1 in found:
        rows.add(
            f"decode {name}, batch 1, of the bandwidth floor",
            found[1] / floor,
            "",
            weights_mb=weights / 1e6,
            floor=floor,
        )
    for compiled, least in ((False, 15.0), (True, 60.0)):
        label = f"transformers' static cache{', compiled' if compiled else ''} {name}, batch 1"
        if time.monotonic() + (least if full else 0) > deadline or (compiled and not full):
            rows.add(label, "no time" if full else "not run: compiling is for a GPU")
            continue
        with rows.attempt(label):
            theirs = rate(static_cache(model, ids, new, device, compiled), 1, new, device, 1)
            rows.add(label, theirs, "tokens/s")
            if 1 in found:
                which = "" if compiled else " uncompiled"
                rows.add(f"decode {name}, batch 1, of transformers' static cache{which}", found[1] / theirs, "x")


def main() -> None:
    chosen = options(__doc__)
    rows, deadline = Rows(chosen.folder), chosen.deadline
    speed = bandwidth(chosen.device)
    rows.add("copy, read and written", speed / 1e12, "TB/s")
    for name in ("135M", "1B", "8B") if chosen.full else ("tiny",):
        with rows.attempt(f"decode {name}"):
            measured(rows, name, chosen.device, speed, deadline)
        gc.collect()
        torch._dynamo.reset()
        if chosen.full:
            torch.cuda.empty_cache()
    raise SystemExit(rows.failed)


if __name__ == "__main__":
    main()
