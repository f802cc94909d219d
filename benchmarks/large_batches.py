"""One contrastive batch in micro-batches, ours and open_clip's `--accum-freq` side by side: time, memory, error; written to docs/benchmarks.md.

    python benchmarks/large_batches.py [--batch 128] [--micro 32 16] [--rounds 5] [--device cuda] [--dry-run]

Both sides train equal architectures on the same pairs in one process, turn by turn; a turn is a whole optimizer step on the whole batch. Theirs is
one epoch of `open_clip_train.train.train_one_epoch` over loaders of micro-batches; ours is `ClipMethod`'s step. Memory comes from a process per row.
Errors are distances of the gradient from that of the same side's whole batch, relative to its length. Needs the `bench` extra.
"""

import argparse
import gc
import logging
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from clip import SIZES, WARM_UP, Size, alignlab_net, make_batch, open_clip_net, open_clip_optimizer
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

SIDES = ("open_clip", "alignlab")
Step = Callable[[], object]


def alignlab_step(net: nn.Module, size: Size, micro: int, device: str) -> Step:
    """As `ClipMethod.forward` and the optimizer's step."""
    from alignlab.losses.contrastive import InfoNce
    from alignlab.methods.parts.cached_gradient import cached_gradient_loss
    from alignlab.optim.adamw import adamw

    loss = InfoNce()
    parts = list(zip(*(x.to(device).split(micro) for x in make_batch(size)), strict=True))
    optimizer = adamw(net, lr=5e-8, weight_decay=0.2, betas=(0.9, 0.98), eps=1e-6, total_steps=1, schedule="constant")[
        "optimizer"
    ]

    def step() -> None:
        optimizer.zero_grad()
        if len(parts) == 1:
            value = loss(*net(*parts[0]))
        else:
            value = cached_gradient_loss(lambda part: net(*part), parts, loss, num_rowwise=2)
        value.backward()
        optimizer.step()
        net.clamp_temperature()

    return step


class Loader(list):
    """What `train_one_epoch` asks of its data."""

    num_batches = property(len)
    num_samples = property(lambda self: sum(len(images) for images, _ in self))


def open_clip_step(net: nn.Module, size: Size, micro: int, device: str) -> Step:
    """An epoch of one optimizer step in open_clip's trainer."""
    from open_clip.loss import ClipLoss
    from open_clip_train.train import train_one_epoch

    logging.disable(logging.INFO)
    image, ids, _ = make_batch(size)
    data = Namespace(
        dataloader=Loader(zip(image.split(micro), ids.split(micro), strict=True)), set_epoch=lambda _: None
    )
    arguments = Namespace(
        device=device, precision="fp32", accum_freq=len(data.dataloader), distill=False, skip_scheduler=True, horovod=False,
        grad_clip_norm=None, rank=0, local_rank=0, world_size=1, log_every_n_steps=1, wandb=False, log_local=False,
        batch_size=micro,
    )  # fmt: skip
    optimizer, loss = open_clip_optimizer(net), ClipLoss(cache_labels=True)
    return partial(train_one_epoch, net, {"train": data}, loss, 0, optimizer, None, None, None, arguments)


def build(side: str, size: Size, micro: int, device: str) -> tuple[nn.Module, Step]:
    torch.manual_seed(0)
    net = (open_clip_net if side == "open_clip" else alignlab_net)(size).to(device)
    return net, (open_clip_step if side == "open_clip" else alignlab_step)(net, size, micro, device)


def gradients(side: str, size: Size, micro: int, device: str) -> tuple[Tensor, float]:
    """Of all weights, and of the temperature."""
    net, step = build(side, size, micro, device)
    step()
    found = {name: p.grad.flatten() for name, p in net.named_parameters()}
    temperature = found.pop("logit_scale")
    return torch.cat(list(found.values())), float(temperature)


def errors(cases: list[tuple[str, int]], size: Size, device: str) -> dict[tuple[str, int], tuple[float, float]]:
    """Relative error of the weights' gradient, and the temperature's gradient in units of the right one."""
    whole = {side: gradients(side, size, size.batch, device) for side in {side for side, _ in cases}}
    found = {}
    for side, micro in cases:
        (weights, temperature), (wanted, right) = gradients(side, size, micro, device), whole[side]
        found[side, micro] = float((weights - wanted).norm() / wanted.norm()), temperature / right
    return found


def peak_memory(side: str, size: Size, micro: int, device: str) -> int:
    """Bytes that this process needs at most for two steps, above what it held before."""
    build(side, WARM_UP, 1 if side == "alignlab" else WARM_UP.batch, device)[1]()  # imports and thread pools
    gc.collect()
    before = resident_bytes()
    _, step = build(side, size, micro, device)
    for _ in range(2):
        step()
    return torch.cuda.max_memory_allocated() if device == "cuda" else resident_bytes("VmHWM") - before


def section(size: Size, cases: list[tuple[str, int]], rounds: int, device: str) -> str:
    import open_clip

    time_of = median_seconds({case: build(case[0], size, case[1], device)[1] for case in cases}, rounds, device)
    print({f"{side} {micro}": round(time_of[side, micro], 2) for side, micro in cases}, flush=True)
    error_of = errors(cases, size, device)
    rows = []
    for side, micro in cases:
        memory = number_from_process(
            "--memory-of", side, "--batch", str(size.batch), "--micro", str(micro), "--device", device
        )
        whole, (error, temperature) = time_of[side, size.batch], error_of[side, micro]
        rows.append(
            f"| {size.batch} | {micro} | {side} | {time_of[side, micro]:.2f} | {time_of[side, micro] / whole:.2f} "
            f"| {memory / 2**20:.0f} | {error:.0e} | {temperature:.3f} |"
        )
        print(rows[-1], flush=True)
    return f"""
## Large batches in micro-batches against open_clip's `--accum-freq`

One optimizer step of CLIP on one batch (6 layers of width 192 for pictures of 64 px, 4 for 77 tokens; float32), both sides alternating in one
process; medians of {rounds} turns. "of whole" is the time relative to the same side without micro-batches; 4/3 is what a second forward pass of
everything costs. Memory is the peak above the start of the process, weights, optimizer state and the batch included. The gradient's error is
relative to that of the whole batch; the temperature's gradient is given in units of the right one.
torch {torch.__version__}, open_clip {open_clip.__version__}, {hardware(device)}, {time.strftime("%Y-%m-%d")}. Made by `python benchmarks/large_batches.py`.

| batch | micro-batch | side | seconds a step | of whole | peak MiB | gradient's error | temperature's gradient |
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--micro", type=int, nargs="+", default=[32, 16])
    parser.add_argument("--rounds", type=int, default=5, help="measured turns of each side")
    parser.add_argument("--dry-run", action="store_true", help="print the table without writing it to the page")
    device_option(parser)
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    check_device(arguments.device)
    size = replace(SIZES["small"], batch=arguments.batch)
    if arguments.memory_of:
        print(peak_memory(arguments.memory_of, size, arguments.micro[0], arguments.device))
        return
    cases = [(side, micro) for micro in (arguments.batch, *arguments.micro) for side in SIDES]
    text = section(size, cases, arguments.rounds, arguments.device)
    if not arguments.dry_run:
        write_section(section_name("large_batches", arguments.device), text)


if __name__ == "__main__":
    main()
