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
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from measuring import check_device, device_option, hardware, section_name, write_section
from ppo_sides import OURS, SEPARATE, SETTINGS, TRL, Setting
from turns import Report, Worker, in_turn, medians, peaks, rate, table

SIDES = (TRL, OURS, SEPARATE)


def floor(size: Setting, side: str) -> dict[str, float]:
    """FLOPs of a side's phases: 2 a parameter and token forward, 6 with backward. Our heads see response tokens only, TRL's all
    but in sampling; it takes the policy's log-probabilities from there.
    """
    tokens, answers = size.batch * (size.prompt + size.response), size.batch * size.response
    trunk, head, critics = 2 * size.trunk * tokens, 2 * size.head * answers, int(side != OURS)
    whole = 2 * size.head * tokens if side == TRL else head
    return {
        "generate": trunk + head,
        # policy, reference, reward, a critic of its own; TRL without the policy
        "score": (3 + critics) * trunk + 2 * head if side != TRL else 3 * trunk + whole,
        "improve": size.epochs * 3 * ((1 + critics) * trunk + whole),
    }


def section(reports: dict[str, list[Report]], peak: dict[str, int], speed: float, setting: str, device: str) -> str:
    """This section of the page."""
    size, rounds = SETTINGS[setting], len(reports[TRL])
    middle = {side: medians(reports[side]) for side in SIDES}
    floors = {f"floor of {side}": floor(size, side) for side in SIDES}
    least = {side: sum(floor(size, side).values()) / speed for side in SIDES}
    seconds = {side: middle[side]["update"] for side in SIDES}
    most = {side: f"{least[side]:.2f} s, {seconds[TRL] / least[side]:.1f} times" for side in SIDES}
    share = {side: f"{least[side] / seconds[side]:.0%}" for side in SIDES}
    return f"""
## PPO against TRL

Whole updates: {size.batch} prompts of {size.prompt} tokens, responses of {size.response}, {size.epochs} epochs, a Llama of
{"22.7 M" if setting == "page" else setting} parameters (vocabulary {size.vocabulary:,}), float32, all weights trained.
Each side in its own process, one after the other by turns; medians of {rounds} turns. Seconds; generate: sampling; score: log-probabilities,
values, reference, reward; improve: the epochs. Floor: FLOPs of that phase over {speed / 1e9:.0f} GFLOP/s, the fastest large product here.
Memory: peak above the start of the process, MiB.
torch {torch.__version__}, TRL {version("trl")}, {hardware(device)},
{date.today()}. Made by `python benchmarks/ppo.py`.

{table(middle, peak, floors, speed)}

Four times TRL's speed would be {seconds[TRL] / 4:.2f} s. With a critic of its own the products alone take {most[SEPARATE]}: more can't be had in
float32; with a shared trunk {most[OURS]}. Products are {share[TRL]} of TRL's time, {share[SEPARATE]} and {share[OURS]} of ours.
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

    def start(side: str, updates: int = 4, exact_memory: bool = True) -> Worker:
        exact_memory &= arguments.device == "cpu"
        return Worker("ppo_sides", side, exact_memory, updates=updates, setting=where[0], device=where[1])

    if arguments.part != "memory":
        workers = {side: start(side, arguments.rounds + 2, exact_memory=False) for side in SIDES}
        kept["reports"], kept["speed"] = in_turn(workers, arguments.rounds), rate(arguments.device)
        for worker in workers.values():
            worker.close()
    if arguments.part != "speed":
        kept["peak"] = peaks(start, SIDES, arguments.device)
    if arguments.keep:
        arguments.keep.write_text(json.dumps(kept))
    if {"reports", "peak"} <= set(kept):
        text = section(kept["reports"], kept["peak"], kept["speed"], *where)
        print(text)
        if not arguments.dry_run:
            write_section(section_name("ppo", arguments.device), text)


if __name__ == "__main__":
    main()
