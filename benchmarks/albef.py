# ruff: noqa: E402  (the oracle is imported from the tests)
"""ALBEF pre-training steps against a plain implementation of the published code, and FLOPs per sample; written to docs/benchmarks.md.

    python benchmarks/albef.py [--sizes tiny mid] [--rounds 7] [--device cpu] [--dry-run]

The plain side is the oracle of the parity tests (tests/support/albef_reference.py), which computes as the published code does: explicit
attention, three fusion calls, language head at all positions, negatives one by one, moving average tensor by tensor, AdamW without fused
kernels. Both sides have the same sizes, parameter counts (compared) and batch and run in one process, turn by turn; a turn is a whole
step: moving average, teacher, student, losses, backward, queues, AdamW. Rates are medians over turns. Peak memory comes from a process
per side. FLOPs are torch's count of forward and backward at the published sizes.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))


from albef_pair import TINY, make_system, random_batch
from albef_reference import AlbefReference, adamw
from albef_reference_encoders import Sizes
from alignlab.methods.step import Step
from alignlab.optim.adamw import adamw as our_adamw
from alignlab.types.pairs import PairBatch

import torch
from measuring import (
    check_device,
    device_option,
    hardware,
    number_from_process,
    resident_bytes,
    section_name,
    wait,
    write_section,
)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

PEERS = ("plain", "alignlab")
PUBLISHED_GFLOPS = 300.1  # per sample, three times the student's forward pass and once the teacher's

# name -> (sizes, batch, tokens). "tiny" has the sizes of model=albef, but the published patch stem and a queue; "mid" has the published
# vocabulary.
SIZES = {
    "tiny": (
        Sizes(
            image_size=48,
            patch_size=8,
            vision_width=128,
            vision_layers=4,
            vision_heads=4,
            vocab_size=512,
            text_width=128,
            text_layers=4,
            fusion_layer=2,
            text_heads=4,
            max_positions=64,
            embed_dim=64,
            queue_size=2048,
            dropout=0.0,
            cls_id=2,
            mask_id=4,
        ),
        64,
        24,
    ),
    "mid": (
        Sizes(
            image_size=128,
            vision_width=384,
            vision_layers=6,
            vision_heads=6,
            text_width=384,
            text_layers=6,
            fusion_layer=3,
            text_heads=6,
            queue_size=4096,
        ),
        16,
        30,
    ),
    "vit_b16": (Sizes(), 64, 30),
}

WARM_UP = TINY, 4, 9

Turn = Callable[[], Tensor]


def build(peer: str, case: tuple[Sizes, int, int], precision: str, device: str) -> tuple[Turn, int]:
    """A whole training step, and the number of trainable parameters."""
    sizes, pairs, tokens = case
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    batch = random_batch(sizes, pairs, tokens, generator).moved(torch.device(device))

    def autocast():
        return torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext()

    if peer == "plain":
        model = AlbefReference(sizes).to(device).train()
        plain_optimizer = adamw(model)

        def plain_step() -> Tensor:
            with autocast():
                loss = sum(model(batch.image, batch.ids, batch.mask, 0.4))
            plain_optimizer.zero_grad()
            loss.backward()
            plain_optimizer.step()
            return loss.detach()

        return plain_step, sum(p.numel() for p in model.parameters() if p.requires_grad)

    system = make_system(sizes).to(device)
    optimizer = our_adamw(system.net, lr=1e-4, total_steps=1000)["optimizer"]
    method, numbers = system.method, count()

    def step() -> Tensor:
        now = Step(next(numbers))
        method.before_step(now)
        with autocast():
            output = method(batch, now)
        optimizer.zero_grad()
        output.loss.backward()
        method.after_backward(output.kept)
        optimizer.step()
        return output.loss.detach()

    return step, sum(p.numel() for p in system.net.parameters())


def rates(name: str, precision: str, rounds: int, device: str) -> dict[str, float]:
    """Median samples per second of each side, turn by turn; the order turns round after every round."""
    built = {peer: build(peer, SIZES[name], precision, device) for peer in PEERS}
    counts = {peer: count for peer, (_, count) in built.items()}
    assert len(set(counts.values())) == 1, f"not the same architecture: {counts}"
    seconds: dict[str, list[float]] = {peer: [] for peer in PEERS}
    for turn in range(rounds + 2):
        for peer in PEERS if turn % 2 else reversed(PEERS):
            wait(device)
            start = time.perf_counter()
            built[peer][0]()
            wait(device)
            if turn > 1:  # the first two allocate
                seconds[peer].append(time.perf_counter() - start)
    return {peer: SIZES[name][1] / statistics.median(times) for peer, times in seconds.items()}


def peak_memory(peer: str, name: str, precision: str, device: str) -> int:
    """Bytes that this process needs at most for three steps, above what it held before; of the GPU where there is one."""
    build(peer, WARM_UP, precision, device)[0]()  # imports and thread pools
    gc.collect()
    before = resident_bytes()
    step, _ = build(peer, SIZES[name], precision, device)
    for _ in range(3):
        step()
    return torch.cuda.max_memory_allocated() if device == "cuda" else resident_bytes("VmHWM") - before


def peak_memory_in_subprocess(peer: str, name: str, precision: str, device: str) -> int:
    return number_from_process("--memory-of", peer, "--sizes", name, "--precisions", precision, "--device", device)


def gflops_per_sample(peer: str, count: int = 64, where: str = "meta", case: str = "vit_b16") -> float:
    """Forward and backward of one step at the published sizes, no dropout, alpha 0.4, in 10^9 FLOPs (two a multiplication with addition).

    `where` it runs changes no count: on the meta device Python works out every shape, which takes a minute; a GPU computes it in seconds.
    """
    sizes, _, tokens = SIZES[case]
    sizes = sizes._replace(dropout=0.0)
    counter = FlopCounterMode(display=False)
    # The meta device has shapes without data. It has no autocast, not even to switch off; fused attention counts as its two products.
    no_autocast = mock.patch("torch.autocast", return_value=nullcontext())
    with no_autocast, sdpa_kernel(SDPBackend.MATH), torch.device(where):
        ids, mask = torch.zeros(count, tokens, dtype=torch.int64), torch.ones(count, tokens, dtype=torch.bool)
        image, others = torch.zeros(count, 3, sizes.image_size, sizes.image_size), list(range(count))
        if peer == "plain":
            model = AlbefReference(sizes)
            chances = {"masked_ids": ids, "labels": ids, "negative_images": others, "negative_texts": others}
            with counter:
                sum(model(image, ids, mask, 0.4, **chances)).backward()
        else:
            method = make_system(sizes).method
            with counter:
                method.losses(PairBatch(image, ids, mask, ids[:, 0], ids[:, 0]), 0.4).losses["loss"].backward()
    return counter.get_total_flops() / count / 1e9


def measure(names: list[str], precisions: list[str], rounds: int, device: str) -> list[str]:
    """Rows of the table."""
    rows = []
    for name in names:
        for precision in precisions:
            speed = rates(name, precision, rounds, device)
            gc.collect()
            memory = {peer: peak_memory_in_subprocess(peer, name, precision, device) for peer in PEERS}
            for peer in PEERS:
                ratio, share = speed[peer] / speed["plain"], memory[peer] / memory["plain"]
                rows.append(
                    f"| {name}, batch {SIZES[name][1]} | {precision} | {peer} | {speed[peer]:.1f} | {ratio:.2f} "
                    f"| {memory[peer] / 2**20:.0f} | {share:.2f} |"
                )
                print(rows[-1], flush=True)
    return rows


def section(rows: list[str], flops: dict[str, float], rounds: int, device: str) -> str:
    """This benchmark's part of the page."""
    return f"""
## ALBEF against a plain implementation

Whole pre-training steps (moving average, teacher, student, three losses, backward, queues, AdamW), both sides alternating in one process;
medians of {rounds} turns. The plain side is the parity tests' oracle, which computes the way the published code does. Memory is the peak
above the start of the process, weights and optimizer state included. torch {torch.__version__}, {hardware(device)}. Made by `python benchmarks/albef.py`.

| sizes | precision | side | samples/s | speed ratio | peak MiB | memory ratio |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

FLOPs of one step at ViT-B/16, 256 px, 30 tokens, batch 64, by torch's `FlopCounterMode` (forward and backward of the student, forward of the
teacher, two per multiplication with addition). The published code's arithmetic adds up to {PUBLISHED_GFLOPS} GFLOP per sample.

| side | GFLOP per sample | share of {PUBLISHED_GFLOPS} |
|---|---|---|
{chr(10).join(f"| {peer} | {value:.1f} | {value / PUBLISHED_GFLOPS:.3f} |" for peer, value in flops.items())}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny", "mid"])
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=7, help="measured turns of each side")
    device_option(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the tables without writing them to docs/benchmarks.md"
    )
    parser.add_argument("--memory-of", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    check_device(arguments.device)
    if arguments.memory_of:
        print(peak_memory(arguments.memory_of, arguments.sizes[0], arguments.precisions[0], arguments.device))
        return
    rows = measure(arguments.sizes, arguments.precisions, arguments.rounds, arguments.device)
    where = "meta" if arguments.device == "cpu" else arguments.device
    flops = {peer: gflops_per_sample(peer, where=where) for peer in PEERS}
    print({peer: round(value, 2) for peer, value in flops.items()}, flush=True)
    text = section(rows, flops, arguments.rounds, arguments.device)
    print(text) if arguments.dry_run else write_section(section_name("albef", arguments.device), text)


if __name__ == "__main__":
    main()
