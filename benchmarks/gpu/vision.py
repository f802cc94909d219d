"""CLIP and ALBEF ViT-B/16 steps in bfloat16: samples/s, MFU by the model's own FLOPs, peak against the arithmetic, beside open_clip. A part of `make gpu`."""

import gc
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from alignlab.cost.flops import ModelFlops, peak_flops
from alignlab.cost.memory import counts, training_memory

import albef
import clip
import torch
from measuring import wait
from rows import Rows, options

CLIP_BATCHES, ALBEF_BATCHES = (512, 256, 128), (256, 128, 64)  # the first that fits
COMPILING = 55.0  # seconds that a compiled side takes; none is begun with less left


def seconds_of(step: Callable[[], object], device: str, rounds: int, warm: int = 3) -> float:
    """Median over rounds of three steps."""
    for _ in range(warm):
        step()
    times = []
    for _ in range(rounds):
        wait(device)
        started = time.perf_counter()
        for _ in range(3):
            step()
        wait(device)
        times.append((time.perf_counter() - started) / 3)
    return statistics.median(times)


def fitting(batches: tuple[int, ...], measure: Callable[[int], float]) -> tuple[int, float]:
    """The first batch size that fits, and what was measured with it."""
    for batch in batches[:-1]:
        try:
            return batch, measure(batch)
        except torch.OutOfMemoryError:
            clear()
    return batches[-1], measure(batches[-1])


def clear() -> None:
    """Gives back what the last side held."""
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(device: str) -> float:
    """GiB that torch had allocated at most."""
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0


def clip_sides(rows: Rows, device: str, full: bool, deadline: float) -> None:
    """Eager sides first, then the compiled ones as far as time goes."""
    size = clip.SIZES["vit_b16"] if full else clip.WARM_UP
    rounds, ours, theirs = 5 if full else 1, "alignlab", "open_clip"
    rate: dict[tuple[str, bool], float] = {}
    batch = size.batch
    for peer, compiled in ((ours, False), (theirs, False), (ours, True), (theirs, True)):
        label = f"CLIP ViT-B/16{' compiled' if compiled else ''}, {peer}"
        if peer == theirs and importlib.util.find_spec("open_clip") is None:
            rows.add(label, "not run: open_clip is missing")
            continue
        if compiled and (not full or time.monotonic() + COMPILING > deadline):
            rows.add(label, "no time" if full else "not run: compiling is for a GPU")
            continue
        with rows.attempt(label):
            clear()

            def measure(number: int, peer: str = peer, compiled: bool = compiled) -> float:
                step, _ = clip.build(peer, replace(size, batch=number), "bf16", device, compiled)
                return seconds_of(step, device, rounds)

            tried = (batch,) if rate or not full else CLIP_BATCHES  # what fitted first is everybody's
            batch, seconds = fitting(tried, measure)
            rate[peer, compiled] = batch / seconds
            rows.add(label, batch / seconds, "pairs/s", batch=batch, milliseconds=1e3 * seconds, peak_gib=peak(device))
    compare_clip(rows, rate, replace(size, batch=batch), device)


def compare_clip(rows: Rows, rate: dict[tuple[str, bool], float], size: clip.Size, device: str) -> None:
    """MFU, ratios and the arithmetic of memory."""
    per_pair = clip_flops(size, device)
    for compiled in (False, True):
        words = " compiled" if compiled else ""
        if ("alignlab", compiled) in rate:
            share = rate["alignlab", compiled] * per_pair / peak_flops(torch.device(device), torch.bfloat16)
            rows.add(f"CLIP ViT-B/16{words}, MFU", share, "", gflops=per_pair / 1e9)
        if ("alignlab", compiled) in rate and ("open_clip", compiled) in rate:
            ratio = rate["alignlab", compiled] / rate["open_clip", compiled]
            rows.add(f"CLIP ViT-B/16{words}, of open_clip {'compiled' if compiled else 'eager'}", ratio, "x")
    memory = training_memory(counts(clip.alignlab_net(size)), "none", precision="bf16-mixed")
    rows.add("CLIP ViT-B/16, weights, gradients and optimizer by the arithmetic", memory.total / 2**30, "GiB")


def clip_flops(size: clip.Size, device: str) -> float:
    """Of one pair, forward and backward, counted on the device."""
    small = replace(size, batch=8)
    net, batch = clip.alignlab_net(small).to(device), [x.to(device) for x in clip.make_batch(small)]
    with ModelFlops() as counter:
        pairs = net(*batch)
        (pairs.image.sum() + pairs.text.sum()).backward()
    return counter.get_total_flops() / small.batch


def albef_sides(rows: Rows, device: str, full: bool) -> None:
    """Our step at the published sizes."""
    sizes, _, tokens = albef.SIZES["vit_b16"] if full else albef.WARM_UP
    clear()

    def measure(number: int) -> float:
        step, _ = albef.build("alignlab", (sizes, number, tokens), "bf16", device)
        return seconds_of(step, device, 5 if full else 1)

    batch, seconds = fitting(ALBEF_BATCHES if full else (4,), measure)
    rows.add(
        "ALBEF ViT-B/16, alignlab",
        batch / seconds,
        "pairs/s",
        batch=batch,
        milliseconds=1e3 * seconds,
        peak_gib=peak(device),
    )
    clear()
    held = training_memory(counts(albef.make_system(sizes)), "none", precision="bf16-mixed").total
    rows.add("ALBEF ViT-B/16, weights, gradients and optimizer by the arithmetic", held / 2**30, "GiB")
    case = "vit_b16" if full else "tiny"
    gflops = albef.gflops_per_sample("alignlab", count=32 if full else 2, where=device, case=case)
    share = batch / seconds * gflops * 1e9 / peak_flops(torch.device(device), torch.bfloat16)
    rows.add("ALBEF ViT-B/16, MFU", share, "", gflops=gflops)


def main() -> None:
    chosen = options(__doc__)
    rows, deadline = Rows(chosen.folder), chosen.deadline
    with rows.attempt("ALBEF ViT-B/16"):
        albef_sides(rows, chosen.device, chosen.full)
    with rows.attempt("CLIP ViT-B/16"):
        clip_sides(rows, chosen.device, chosen.full, deadline)
    raise SystemExit(rows.failed)


if __name__ == "__main__":
    main()
