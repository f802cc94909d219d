"""A pre-training step of our decoder beside transformers' own module, written to docs/benchmarks.md.

    python benchmarks/lm_step.py [--nets llama gpt2 bloom mixtral] [--rounds 7] [--device cuda] [--dry-run]

Both sides have equal weights and take the same full rows in one process, turn by turn: forward, cross-entropy of all tokens, backward, AdamW. Ours is
`model=lm` without z-loss, which transformers lacks; theirs is `model(ids, labels=ids).loss` with the attention it chooses by itself.
Memory is the highest resident size of a process of one side's own above that before its first step. The floor is FLOPs over those of a large
matrix product measured before.
"""

import argparse
from collections.abc import Callable
from datetime import date
from functools import partial

from alignlab.cost.flops import ModelFlops, measured_flops
from alignlab.methods.lm import LmMethod
from alignlab.models.language.decoder.building import decoder
from alignlab.models.language.decoder.exchange import as_transformers
from alignlab.optim.adamw import adamw
from alignlab.types.language import LanguageVocabulary, TokenBatch

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

GPT2 = {"norm": "layer", "activation": "gelu_tanh", "position": "learned", "bias": True}
NETS = {
    "llama": {"kv_heads": 2},
    "gpt2": GPT2,
    "bloom": GPT2 | {"position": "alibi", "embedding_norm": True},
    "mixtral": {"kv_heads": 2, "experts": 4},
}
SIDES = ("alignlab", "transformers")
WORDS = LanguageVocabulary(4096, 0, 1, 2)
SIZES = {"width": 192, "depth": 4, "heads": 6, "context_length": 256}


def batch_of(rows: int, length: int, device: str) -> TokenBatch:
    """Full rows of random tokens, all but the first of each to predict."""
    ids = torch.randint(4, WORDS.size, (rows, length), generator=torch.Generator().manual_seed(0)).to(device)
    place = torch.arange(length, device=device).expand_as(ids)
    target = (place > 0).flatten().nonzero().squeeze(1)
    return TokenBatch(ids, torch.ones_like(ids), place, target, packed=False)


def step_of(side: str, net: str, rows: int, device: str) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """A training step, which returns its loss, and its forward and backward alone."""
    torch.manual_seed(0)
    batch = batch_of(rows, SIZES["context_length"], device)
    method = LmMethod(partial(decoder, **SIZES, **NETS[net]), vocabulary=WORDS, balance=0.0).to(device)
    model: nn.Module = method.net if side == "alignlab" else as_transformers(method.net).to(device).train()
    optimizer = adamw(model, lr=1e-3, total_steps=1000)["optimizer"]

    def passes() -> Tensor:
        loss = method(batch).loss if side == "alignlab" else model(batch.ids, labels=batch.ids).loss
        loss.backward()
        return loss.detach()

    def step() -> Tensor:
        loss = passes()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step, passes


def memory(side: str, net: str, rows: int, device: str) -> int:
    """Highest bytes above those before the first step, of this process."""
    step, _ = step_of(side, net, rows, device)
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        for _ in range(2):
            step()
        return torch.cuda.max_memory_allocated() - before
    before = resident_bytes()
    for _ in range(2):
        step()
    return resident_bytes("VmHWM") - before


def compared(net: str, rows: int, rounds: int, device: str, peak: float) -> str:
    """A row of the table."""
    steps = {side: step_of(side, net, rows, device) for side in SIDES}
    losses = {side: step().item() for side, (step, _) in steps.items()}
    assert abs(losses["alignlab"] - losses["transformers"]) < 1e-4, losses
    with ModelFlops() as counted:
        steps["alignlab"][1]()
    flops = counted.get_total_flops()
    seconds = median_seconds({side: step for side, (step, _) in steps.items()}, rounds, device)
    ours, theirs = (seconds[side] for side in SIDES)
    bytes_of = [number_from_process("--memory", side, net, "--rows", str(rows), "--device", device) for side in SIDES]
    mine, other = (number / 2**20 for number in bytes_of)
    return (
        f"| {net} | {ours * 1000:.0f} ms | {theirs * 1000:.0f} ms | {ours / theirs:.2f} | {flops / 1e9:.1f} | "
        f"{flops / peak / ours:.0%} | {mine:.0f} MB | {other:.0f} MB | {mine / other:.2f} |"
    )


def main() -> None:
    """Measures all nets and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--memory", nargs=2, metavar=("SIDE", "NET"), help="prints one side's bytes, nothing else")
    parser.add_argument("--dry-run", action="store_true", help="prints, writes nothing")
    device_option(parser)
    arguments = parser.parse_args()
    check_device(arguments.device)
    if arguments.memory:
        print(memory(*arguments.memory, arguments.rows, arguments.device))
        return
    peak = measured_flops(torch.device(arguments.device), torch.float32, 1.0)
    rows = [compared(net, arguments.rows, arguments.rounds, arguments.device, peak) for net in arguments.nets]
    text = "\n".join(
        [
            "## A pre-training step beside transformers",
            "",
            f"`python benchmarks/lm_step.py`, {hardware(arguments.device)}, float32, torch {torch.__version__}, {date.today()}: "
            f"{arguments.rows} rows of {SIZES['context_length']} tokens, width {SIZES['width']}, depth {SIZES['depth']}, {WORDS.size} ids; "
            f"medians of {arguments.rounds} steps in turn; floor: FLOPs over {peak / 1e9:.0f} GFLOP/s of a large product.",
            "",
            "| net | alignlab | transformers | ratio | GFLOP | of the floor | memory | theirs | ratio |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )
    print(text)
    if not arguments.dry_run:
        write_section(section_name("lm step", arguments.device), text)


if __name__ == "__main__":
    main()
