"""CLIP training steps side by side with open_clip: samples per second and peak memory, written to docs/benchmarks.md.

    python benchmarks/clip.py [--sizes small vit_b32] [--rounds 7] [--device cuda] [--dry-run]

Both sides train equal architectures (the parameter counts are compared) on the same pictures and texts in one process, turn by turn; a
turn is a whole step: zero the gradients, forward, loss, backward, AdamW, clamp the temperature, each as the project's own trainer does
it. Rates are medians over turns. Peak memory comes from a process per side: its highest resident size above what it held before the net was
built, of a GPU what torch had allocated at most.
Needs the `bench` extra.
"""

import argparse
import gc
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from measuring import (
    check_device,
    device_option,
    hardware,
    median_seconds,
    number_from_process,
    resident_bytes,
    section_name,
    write_section,
)
from torch import Tensor, nn

PEERS = ("open_clip", "alignlab", "alignlab, dynamic length")


@dataclass(frozen=True)
class Size:
    """Sizes that both sides share."""

    image: int
    patch: int
    vision: tuple[int, int, int]  # width, depth, heads
    text: tuple[int, int, int]
    vocabulary: int
    batch: int
    context: int = 77
    embed: int = 512


SIZES = {
    "small": Size(image=64, patch=8, vision=(192, 6, 3), text=(192, 4, 3), vocabulary=8192, batch=32, embed=192),
    "vit_b16": Size(image=224, patch=16, vision=(768, 12, 12), text=(512, 12, 8), vocabulary=49408, batch=512),
    "vit_b32": Size(image=224, patch=32, vision=(768, 12, 12), text=(512, 12, 8), vocabulary=49408, batch=8),
}
WARM_UP = Size(image=16, patch=8, vision=(64, 1, 1), text=(64, 1, 1), vocabulary=64, batch=2, embed=64)

Step = Callable[[], Tensor]


def make_batch(size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, ids padded to the context length with 0, mask; captions of 8 to 20 tokens, whose last id is the largest: there open_clip reads."""
    g = torch.Generator().manual_seed(0)
    length = torch.randint(8, 21, (size.batch, 1), generator=g)
    mask = torch.arange(size.context) < length
    ids = torch.randint(1, size.vocabulary - 1, (size.batch, size.context), generator=g).masked_fill(~mask, 0)
    ids.scatter_(1, length - 1, size.vocabulary - 1)
    return torch.randn(size.batch, 3, size.image, size.image, generator=g), ids, mask


def autocast(precision: str, device: str):
    return torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext()


def alignlab_net(size: Size) -> nn.Module:
    from alignlab.models.clip import Clip
    from alignlab.models.text import TextTower
    from alignlab.models.vision import vision_transformer

    width, depth, heads = size.vision
    vision = partial(
        vision_transformer,
        image_size=size.image,
        patch_size=size.patch,
        width=width,
        depth=depth,
        heads=heads,
        pre_norm=True,
    )
    width, depth, heads = size.text
    text = partial(TextTower, context_length=size.context, width=width, depth=depth, heads=heads)
    return Clip(vision, text, vocab_size=size.vocabulary, embed_dim=size.embed)


def alignlab_step(
    size: Size, precision: str, dynamic: bool, device: str = "cpu", compiled: bool = False
) -> tuple[Step, int]:
    """Our net, loss and optimizer as `ClipMethod` runs them."""
    from alignlab.losses.contrastive import InfoNce
    from alignlab.optim.adamw import adamw

    net, loss = alignlab_net(size).to(device), InfoNce()
    run = torch.compile(net) if compiled else net
    image, ids, mask = (x.to(device) for x in make_batch(size))
    if dynamic:
        longest = int(mask.sum(1).max())
        ids, mask = ids[:, :longest], mask[:, :longest]
    optim = adamw(net, lr=5e-4, weight_decay=0.2, betas=(0.9, 0.98), eps=1e-6, warmup_steps=10_000, total_steps=100_000)
    optimizer, scheduler = optim["optimizer"], optim["lr_scheduler"]["scheduler"]

    def step() -> Tensor:
        optimizer.zero_grad()
        with autocast(precision, device):
            pairs = run(image, ids, mask)
            value = loss(pairs.image, pairs.text, pairs.scale)
        value.backward()
        optimizer.step()
        scheduler.step()
        net.clamp_temperature()
        return value.detach()

    return step, sum(p.numel() for p in net.parameters())


def open_clip_net(size: Size) -> nn.Module:
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    width, depth, heads = size.vision
    vision = CLIPVisionCfg(
        layers=depth, width=width, head_width=width // heads, patch_size=size.patch, image_size=size.image
    )
    width, depth, heads = size.text
    text = CLIPTextCfg(context_length=size.context, vocab_size=size.vocabulary, width=width, heads=heads, layers=depth)
    return CLIP(size.embed, vision, text, output_dict=True)


def open_clip_optimizer(net: nn.Module) -> torch.optim.Optimizer:
    """AdamW with the parameter groups and defaults of open_clip's trainer."""
    named = list(net.named_parameters())
    plain = [p for n, p in named if p.ndim < 2 or any(part in n for part in ("bn", "ln", "bias", "logit_scale"))]
    chosen = {id(p) for p in plain}
    groups = [
        {"params": plain, "weight_decay": 0.0},
        {"params": [p for _, p in named if id(p) not in chosen], "weight_decay": 0.2},
    ]
    return torch.optim.AdamW(groups, lr=5e-8, betas=(0.9, 0.98), eps=1e-6)  # the first step of a long warm-up


def open_clip_step(size: Size, precision: str, device: str = "cpu", compiled: bool = False) -> tuple[Step, int]:
    """open_clip's net, loss, parameter groups and step with the defaults of its trainer."""
    from open_clip.loss import ClipLoss

    net, loss = open_clip_net(size).to(device), ClipLoss(cache_labels=True)
    run = torch.compile(net) if compiled else net
    optimizer = open_clip_optimizer(net)
    image, ids, _ = (x.to(device) for x in make_batch(size))

    def step() -> Tensor:
        optimizer.zero_grad()
        with autocast(precision, device):
            value = sum(loss(**run(image, ids), output_dict=True).values())
        value.backward()
        optimizer.step()
        with torch.no_grad():
            net.logit_scale.clamp_(0, math.log(100))
        return value.detach()

    return step, sum(p.numel() for p in net.parameters())


def build(peer: str, size: Size, precision: str, device: str = "cpu", compiled: bool = False) -> tuple[Step, int]:
    torch.manual_seed(0)
    if peer == "open_clip":
        return open_clip_step(size, precision, device, compiled)
    return alignlab_step(size, precision, peer.endswith("dynamic length"), device, compiled)


def rates(size: Size, precision: str, rounds: int, device: str) -> dict[str, float]:
    """Median samples per second of each peer, turn by turn; the order turns round after every round."""
    built = {peer: build(peer, size, precision, device) for peer in PEERS}
    counts = {peer: count for peer, (_, count) in built.items()}
    assert len(set(counts.values())) == 1, f"not the same architecture: {counts}"
    seconds = median_seconds({peer: step for peer, (step, _) in built.items()}, rounds, device)
    return {peer: size.batch / seconds[peer] for peer in PEERS}


def peak_memory(peer: str, size: Size, precision: str, device: str) -> int:
    """Bytes that this process needs at most for three steps, above what it held before."""
    build(peer, WARM_UP, precision, device)[0]()  # imports and thread pools
    gc.collect()
    before = resident_bytes()
    step, _ = build(peer, size, precision, device)
    for _ in range(3):
        step()
    return torch.cuda.max_memory_allocated() if device == "cuda" else resident_bytes("VmHWM") - before


def peak_memory_in_subprocess(peer: str, size: str, precision: str, device: str) -> int:
    return number_from_process("--memory-of", peer, "--sizes", size, "--precisions", precision, "--device", device)


def measure(sizes: list[str], precisions: list[str], rounds: int, device: str) -> list[str]:
    """Rows of the table."""
    rows = []
    for name in sizes:
        for precision in precisions:
            speed = rates(SIZES[name], precision, rounds, device)
            memory = {peer: peak_memory_in_subprocess(peer, name, precision, device) for peer in PEERS}
            for peer in PEERS:
                ratio, share = speed[peer] / speed["open_clip"], memory[peer] / memory["open_clip"]
                rows.append(
                    f"| {name}, batch {SIZES[name].batch} | {precision} | {peer} | {speed[peer]:.1f} | {ratio:.2f} | {memory[peer] / 2**20:.0f} | {share:.2f} |"
                )
                print(rows[-1], flush=True)
            gc.collect()
    return rows


def write(rows: list[str], rounds: int, device: str) -> None:
    """Replace this section of the page, and nothing else."""
    import open_clip

    text = f"""
## CLIP against open_clip

Whole training steps (forward, loss, backward, AdamW), both sides alternating in one process; medians of {rounds} turns. Texts of 8 to 20
tokens, padded to 77 on both sides; "dynamic length" cuts the padding at the longest text of the batch, as our data modules do.
Memory is the peak above the start of the process, weights and optimizer state included.
torch {torch.__version__}, open_clip {open_clip.__version__}, {hardware(device)}. Made by `python benchmarks/clip.py`.

| sizes | precision | side | samples/s | speed ratio | peak MiB | memory ratio |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""
    write_section(section_name("clip", device), text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "vit_b32"])
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=7, help="measured turns of each side")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the table without writing it to docs/benchmarks.md"
    )
    device_option(parser)
    parser.add_argument("--memory-of", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    check_device(arguments.device)
    if arguments.memory_of:
        print(peak_memory(arguments.memory_of, SIZES[arguments.sizes[0]], arguments.precisions[0], arguments.device))
        return
    rows = measure(arguments.sizes, arguments.precisions, arguments.rounds, arguments.device)
    if not arguments.dry_run:
        write(rows, arguments.rounds, arguments.device)


if __name__ == "__main__":
    main()
