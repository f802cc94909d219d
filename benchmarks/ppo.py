"""PPO updates side by side with TRL 1.12's PPOTrainer: seconds, phases, peak memory, written to docs/benchmarks.md.

    python benchmarks/ppo.py [--rounds 5] [--device cuda] [--dry-run]

Same architecture for policy, reference and reward (on a CPU a Llama of 22.7 M parameters, on a GPU one of 135 M), same prompts, response length
(never ended), batch, epochs (4), one minibatch, AdamW, all weights trained: `SETTINGS` of ppo_sides.py. TRL trains a second trunk for the critic;
ours is measured both with a shared trunk, its default, and with a second one. Each side is a process of its own that makes one update when it is
told to, in turn; medians over the rounds after one that doesn't count. Peak memory: highest resident size above what the process held before any
net was built, from processes that do nothing else; on a GPU what torch had allocated at most.
Needs the extras `parity` and `rlhf`.
"""

import argparse
import json
import statistics
import time
from datetime import date
from pathlib import Path

import torch
from measuring import check_device, device_option, hardware, section_name, wait, write_section
from ppo_sides import OURS, SEPARATE, SETTINGS, TRL, Setting, Worker

SIDES = (TRL, OURS, SEPARATE)


def rate(device: str) -> float:
    """Multiplications with additions x 2 a second in large float32 products: the floor's measure."""
    side = 1024 if device == "cpu" else 8192
    a, best = torch.randn(side, side, device=device), 0.0
    for _ in range(20):
        wait(device)
        began = time.perf_counter()
        a @ a
        wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def floors(size: Setting) -> dict[str, float]:
    """FLOPs of our phases: 2 a parameter and token forward, 6 with backward; the head sees response tokens only."""
    attention = size.width * size.width * (2 + 2 * size.key_heads / size.heads)
    trunk = size.layers * (attention + 3 * size.width * size.inner)
    tokens, answers = size.batch * (size.prompt + size.response), size.batch * size.response
    head = size.vocabulary * size.width
    return {
        "generate": 2 * trunk * tokens + 2 * head * answers,
        "score": 3 * 2 * trunk * tokens + 2 * 2 * head * answers,  # policy, reference, reward
        "improve": size.epochs * (6 * trunk * tokens + 6 * head * answers),
    }


def measure(rounds: int, setting: str, device: str) -> tuple[dict[str, list[dict[str, float]]], float]:
    """Reports of each side, turn by turn."""
    workers = {side: Worker(side, rounds + 2, setting=setting, device=device) for side in SIDES}
    reports: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(rounds + 1):
        for side, worker in workers.items():
            report = worker.turn()
            if number:
                reports[side].append(report)
            print(number, side, {k: round(v, 2) for k, v in report.items() if k != "peak"}, flush=True)
    speed = rate(device)
    for worker in workers.values():
        worker.close()
    return reports, speed


def memory(setting: str, device: str) -> dict[str, int]:
    """Peak above the start, bytes, over two updates."""
    found = {}
    for side in SIDES:
        worker = Worker(side, 4, exact_memory=device == "cpu", setting=setting, device=device)
        worker.turn()
        found[side] = int(worker.turn()["peak"] - (worker.before if device == "cpu" else 0))
        worker.close()
        print("memory", side, found[side] / 2**20, flush=True)
    return found


def table(
    reports: dict[str, list[dict[str, float]]],
    peak: dict[str, int],
    speed: float,
    rounds: int,
    setting: str,
    device: str,
) -> str:
    """This section of the page."""
    size = SETTINGS[setting]
    import trl

    middle = {
        side: {key: statistics.median(r.get(key, 0.0) for r in reports[side]) for key in reports[side][0]}
        for side in SIDES
    }
    rows = [
        f"| {side} | {m['update']:.2f} | {middle[SIDES[0]]['update'] / m['update']:.2f} | {m['generate']:.2f} | {m['score']:.2f} | {m['improve']:.2f} "
        f"| {peak[side] / 2**20:.0f} | {peak[side] / peak[SIDES[0]]:.2f} |"
        for side, m in middle.items()
    ]
    floor = floors(size)
    seconds = {name: flops / speed for name, flops in floor.items()}
    rows.append(
        f"| floor of alignlab | {sum(seconds.values()):.2f} | | {seconds['generate']:.2f} | {seconds['score']:.2f} | {seconds['improve']:.2f} | | |"
    )
    lines = "\n".join(rows)
    return f"""
## PPO against TRL

Whole updates: {size.batch} prompts of {size.prompt} tokens, responses of {size.response}, {size.epochs} epochs, a Llama of
{"22.7 M" if setting == "page" else setting} parameters (vocabulary {size.vocabulary:,}), float32, all weights trained.
Each side in its own process, one after the other by turns; medians of {rounds} turns. Seconds; generate: sampling; score: log-probabilities,
values, reference, reward; improve: the epochs. Floor: FLOPs of that phase over {speed / 1e9:.0f} GFLOP/s, the fastest large product here.
Memory: peak above the start of the process, MiB.
torch {torch.__version__}, TRL {trl.__version__}, {hardware(device)},
{date.today()}. Made by `python benchmarks/ppo.py`.

| side | update | speed ratio | generate | score | improve | peak MiB | memory ratio |
|---|---|---|---|---|---|---|---|
{lines}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measured turns of each side")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the table without writing it to docs/benchmarks.md"
    )
    parser.add_argument("--part", choices=("all", "speed", "memory"), default="all")
    parser.add_argument("--keep", type=Path, help="file for the numbers of a part, read again by the other part")
    device_option(parser)
    arguments = parser.parse_args()
    check_device(arguments.device)
    where = ("page" if arguments.device == "cpu" else "135M", arguments.device)
    kept = json.loads(arguments.keep.read_text()) if arguments.keep and arguments.keep.exists() else {}
    if arguments.part != "memory":
        kept["reports"], kept["speed"] = measure(arguments.rounds, *where)
    if arguments.part != "speed":
        kept["peak"] = memory(*where)
    if arguments.keep:
        arguments.keep.write_text(json.dumps(kept))
    if {"reports", "peak"} <= set(kept):
        text = table(kept["reports"], kept["peak"], kept["speed"], arguments.rounds, *where)
        print(text)
        if not arguments.dry_run:
            write_section(section_name("ppo", arguments.device), text)


if __name__ == "__main__":
    main()
