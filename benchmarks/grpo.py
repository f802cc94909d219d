"""GRPO updates side by side with TRL's GRPOTrainer: seconds, phases, peak memory; rollouts in 8 bits; written to docs/benchmarks.md.

    python benchmarks/grpo.py [--rounds 5] [--device cuda] [--dry-run]
    PYTHONPATH=<folder of another TRL> python benchmarks/grpo.py

Same net (on a CPU a Llama of 22.7 M parameters, on a GPU one of 135 M), prompts, reward function, group, response length (never ended), one epoch
of one step, KL penalty against the start, micro-batches and AdamW on both sides, once with all weights trained and once with a LoRA adapter:
`SIZES` of grpo_sides.py. Each side is a process of its own that makes one update when it is told to, in turn; medians over the rounds after one
that doesn't count. Peak memory: highest resident size above what the process held before any net was built, from processes that do nothing
else; on a GPU what torch had allocated at most. Then responses of a policy of 135 M parameters with an adapter by `backend=int8` and by default,
turn by turn in one process. Needs the extras `parity` and `rlhf`.
"""

import argparse
import json
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from grpo_sides import BETA, GROUP, OURS, RANK, ROWS, SIZES, TRL, words
from measuring import check_device, device_option, hardware, median_seconds, section_name, write_section
from ppo_sides import SETTINGS, Setting, config, prompts
from turns import Report, Worker, in_turn, medians, peaks, rate, table

SIDES = (TRL, OURS)
WEIGHTS = {"whole": "All weights trained", "lora": f"LoRA of rank {RANK} on every linear layer"}
ROLLOUTS = replace(SETTINGS["135M"], batch=2, prompt=32, response=16)
DEFAULT = "default (`compiled`, float32)"


def floor(size: Setting, weights: str, old_pass: bool) -> dict[str, float]:
    """FLOPs of phases: 2 a parameter and token forward, 2 more for inputs' gradients, 2 more where weights are trained; the head sees
    response tokens only.

    old_pass: whether log-probabilities before the step have a pass of their own.
    """
    rows = size.batch * GROUP
    tokens, answers = rows * (size.prompt + size.response), rows * size.response
    forward = 2 * size.trunk * tokens + 2 * size.head * answers
    adapter = 0.0
    if weights == "lora":  # rank (inputs + outputs) of each matrix
        keys = size.width * size.key_heads / size.heads
        ends = 4 * size.width + 2 * (size.width + keys) + 3 * (size.width + size.inner)
        adapter = 2 * tokens * size.layers * RANK * ends
    return {
        "generate": forward + adapter,
        "score": forward + old_pass * (forward + adapter),
        "improve": size.epochs * ((2 if weights == "lora" else 3) * forward + 3 * adapter),
    }


def rollouts(rounds: int, device: str) -> tuple[dict[str, float], int]:
    """Median seconds of drawing responses from a policy with an adapter, by backend; and how many responses."""
    from alignlab.inference.backends.int8 import Int8Backend
    from alignlab.methods.grpo import GrpoMethod
    from alignlab.models.language.lora import add_lora
    from alignlab.types.language import LanguageVocabulary, PromptBatch

    from transformers import LlamaForCausalLM

    policy, steps = LlamaForCausalLM(config(ROLLOUTS)), {}
    ids = prompts(ROLLOUTS, 0)
    batch = PromptBatch(ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(len(ids)))
    rows = len(ids) * GROUP
    sides = {
        DEFAULT: None,
        "`int8`, its 8 rows at a time": lambda: Int8Backend(batch_size=8),
        f"`int8 model.backend.batch_size={rows}`": lambda: Int8Backend(batch_size=rows),
    }
    adapted = add_lora(policy, rank=RANK).to(device)
    for name, backend in sides.items():
        method = GrpoMethod(
            lambda vocabulary: adapted,
            lambda prompts, responses: [0.0] * len(responses),
            vocabulary=LanguageVocabulary(ROLLOUTS.vocabulary, 0, None, 1),
            group_size=GROUP,
            response_length=ROLLOUTS.response,
            backend=backend,
        )
        method.sampling = method.sampling._replace(ignore_eos=True)
        method.prepare(words(ROLLOUTS.vocabulary))
        steps[name] = lambda method=method: method.respond(batch, 0)
    return median_seconds(steps, rounds, device), rows


def of_updates(kept: dict, setting: str) -> str:
    """The tables of updates."""
    size, parts = SIZES[setting], []
    for weights, title in WEIGHTS.items():
        found = kept[weights]
        middle = {side: medians(reports) for side, reports in found["reports"].items()}
        floors = {
            "floor of TRL's passes": floor(size, weights, old_pass=False),
            "floor of ours": floor(size, weights, old_pass=True),
        }
        parts.append(f"{title}:\n\n{table(middle, found['peak'], floors, kept['speed'])}")
    return "\n\n".join(parts)


def section(kept: dict, setting: str, device: str) -> str:
    """This section of the page."""
    size, seconds, responses = SIZES[setting], kept["rollouts"], kept["rows"]
    net = "22.7 M" if setting == "page" else setting
    turns = len(kept["whole"]["reports"][TRL])
    rates = {name: responses * ROLLOUTS.response / value for name, value in seconds.items()}
    drawn = "\n".join(f"| {n} | {s:.2f} | {rates[n]:.0f} | {seconds[DEFAULT] / s:.2f} |" for n, s in seconds.items())
    return f"""
## GRPO against TRL

Whole updates: {size.batch} prompts of {size.prompt} tokens, {GROUP} responses of {size.response} to each, scored by a function,
one epoch of one step, a KL penalty of {BETA} against the start, {ROWS[setting]} rows through the nets at once;
a Llama of {net} parameters (vocabulary {size.vocabulary:,}), float32.
Each side in its own process, one after the other by turns; medians of {turns} turns.
Seconds; generate: sampling; score: reward and log-probabilities of the reference, ours of the policy too (it judges the
sampler and gives KL and entropy); improve: the step. Floors: FLOPs of a phase over {kept["speed"] / 1e9:.0f} GFLOP/s, the fastest large product here.
Memory: peak above the start of the process, MiB.
torch {torch.__version__}, TRL {version("trl")} without checkpointing and logs, {hardware(device)},
{date.today()}. Made by `python benchmarks/grpo.py`.

{of_updates(kept, setting)}

Rollouts alone, of a random Llama of 135 M parameters (vocabulary {ROLLOUTS.vocabulary:,}) with a LoRA adapter of rank {RANK}:
{responses} responses of {ROLLOUTS.response} tokens to prompts of {ROLLOUTS.prompt}, by turns in one process.

| `+backend@model.backend=` | seconds | tokens/s | speed ratio |
|---|---|---|---|
{drawn}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measured turns of each side")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the tables without writing them to docs/benchmarks.md"
    )
    parser.add_argument("--part", choices=("all", *WEIGHTS, "rollouts"), default="all")
    parser.add_argument("--keep", type=Path, help="file for the numbers of a part, read again by the other parts")
    device_option(parser)
    arguments = parser.parse_args()
    check_device(arguments.device)
    setting, device, part = ("page" if arguments.device == "cpu" else "135M"), arguments.device, arguments.part
    kept = json.loads(arguments.keep.read_text()) if arguments.keep and arguments.keep.exists() else {}
    for weights in WEIGHTS if part == "all" else {part} & set(WEIGHTS):

        def start(side: str, updates: int = 4, exact_memory: bool = True, weights: str = weights) -> Worker:
            options = {"updates": updates, "setting": setting, "device": device, "weights": weights}
            return Worker("grpo_sides", side, exact_memory and device == "cpu", **options)

        workers = {side: start(side, arguments.rounds + 2, exact_memory=False) for side in SIDES}
        reports: dict[str, list[Report]] = in_turn(workers, arguments.rounds)
        kept["speed"] = max(kept.get("speed", 0.0), rate(device))
        for worker in workers.values():
            worker.close()
        kept[weights] = {"reports": reports, "peak": peaks(start, SIDES, device)}
    if part in ("all", "rollouts"):
        kept["rollouts"], kept["rows"] = rollouts(arguments.rounds, device)
        print(kept["rollouts"], flush=True)
    if arguments.keep:
        arguments.keep.write_text(json.dumps(kept))
    if {*WEIGHTS, "rollouts"} <= set(kept):
        text = section(kept, setting, device)
        print(text)
        if not arguments.dry_run:
            write_section(section_name("grpo", device), text)


if __name__ == "__main__":
    main()
