"""Every strategy with two processes at one CLIP: memory per rank against the arithmetic, and seconds a step; written to docs/strategies.md.

    python benchmarks/strategies.py [--only ddp fsdp] [--precision 32-true] [--device cuda] [--dry-run] [--ppo]

With --ppo instead: PPO of all weights, whose rollouts gather a whole copy.

Each row is a run of `train.py` on a CPU whose `memory` callback measures in the processes themselves. The joint batch is the same everywhere. Rows that
aren't measured this time stay as benchmarks/strategies.json has them. `deepspeed` needs its extra.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alignlab.configs.command_line import arguments
from alignlab.cost.memory import Counts, Strategy, counts, training_memory
from alignlab.files.result import Result
from alignlab.runs.building import build

import torch
from hydra import compose, initialize_config_dir
from measuring import EXACT_MEMORY, check_device, device_option, write_section

ROOT = Path(__file__).parent.parent
PAGE, TABLE = ROOT / "docs" / "strategies.md", ROOT / "benchmarks" / "strategies.json"
JOINT_BATCH, STEPS, RANKS = 16, 6, 2
PPO_ROW = " | ppo"  # ends the names of PPO's rows
MODEL = (  # some 75 million parameters
    *("model=clip", "model/net=clip_vit_b32", "data=emoji_scenes", "data.image_size=96", "model.net.vision.patch_size=16"),
    *("model.net.vision.width=640", "model.net.vision.depth=10", "model.net.vision.heads=10", "model.net.text.depth=8"),
    *("optim=adamw", "callbacks=[default,memory]", "callbacks.checkpoint=null", "callbacks.final_validation=null", "callbacks.curves=null"),
    *("++callbacks.throughput.warmup_steps=2", "data.num_train=512", "data.num_val=16", "data.num_workers=0", "++trainer.limit_val_batches=0"),
    *(f"trainer.max_steps={STEPS}", "trainer.num_sanity_val_steps=0", "trainer.log_every_n_steps=1"),
)  # fmt: skip
PPO = (  # a policy of some 25 million parameters, its frozen reference, a head for values
    *("model=ppo", "model/peft=none", "model/net=llama_tiny", "model.net.width=512", "model.net.depth=8", "model.net.heads=8", "+data.vocab_size=300"),
    *("model.reward=plan.no_reward", "model.response_length=16", "model.update.micro_batch_size=2", "model.update.epochs=1"),
    *("callbacks=[default,memory]", "callbacks.checkpoint=null", "callbacks.final_validation=null", "callbacks.curves=null", "callbacks.memory.at_step=2"),
    *("trainer.max_steps=3", "trainer.num_sanity_val_steps=0", "trainer.log_every_n_steps=1", "++trainer.limit_val_batches=0"),
    *("++callbacks.throughput.warmup_steps=1", "data.max_length=16"),
)  # fmt: skip
OFFLOAD = ("trainer.strategy.offload_optimizer=true", "trainer.strategy.offload_parameters=true")
CASES: dict[str, tuple[Strategy, int, tuple[str, ...]]] = {
    "one process": ("none", 1, ("trainer=cpu",)),
    "ddp": ("ddp", RANKS, ("trainer=ddp",)),
    "fsdp": ("fsdp", RANKS, ("trainer=fsdp",)),
    "deepspeed 1": ("deepspeed_1", RANKS, ("trainer=deepspeed", "trainer.strategy.stage=1")),
    "deepspeed 2": ("deepspeed_2", RANKS, ("trainer=deepspeed", "trainer.strategy.stage=2")),
    "deepspeed 3": ("deepspeed_3", RANKS, ("trainer=deepspeed", "trainer.strategy.stage=3")),
    "deepspeed 3, offloaded": ("deepspeed_3", RANKS, ("trainer=deepspeed", "trainer.strategy.stage=3", *OFFLOAD)),
}


def model_counts(words: tuple[str, ...]) -> Counts:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=arguments(words))
    _, system = build(cfg)
    system.configure_model()
    return counts(system)


def run(case: str, precision: str, device: str, words: tuple[str, ...]) -> dict[str, float]:
    """Bytes and seconds of one run of train.py."""
    _, ranks, overrides = CASES[case]
    if device == "cuda":
        overrides = tuple(word.replace("trainer=cpu", "trainer=gpu") for word in overrides)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", *words, *overrides, f"trainer.precision={precision}"]
        command += [f"data.batch_size={JOINT_BATCH // ranks}", f"hydra.run.dir={folder}"]
        environment = os.environ | EXACT_MEMORY
        environment |= {
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // ranks)),
            "PYTHONPATH": os.pathsep.join((str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", ""))),
            **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}),
        }
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{case}: {done.stderr.strip().splitlines()[-1]}")
        result = Result.read(Path(folder))
    metrics = result.metrics
    return {
        "tensors": metrics["memory/tensor_bytes"],
        "peak": metrics["memory/peak_bytes"],
        "seconds": JOINT_BATCH / result.samples_per_second,
    }


def section(rows: dict[str, dict], size: Counts) -> str:
    lines = []
    for name, row in rows.items():
        case, _, precision = name.partition(" | ")
        strategy, ranks, _ = CASES[case]
        # on a CPU the host that things are offloaded to is the same memory
        wanted = training_memory(size, strategy, ranks, precision)
        parts = " + ".join(f"{part / 2**20:.0f}" for part in wanted[:3])
        lines.append(
            f"| {case} | {precision} | {parts} | {wanted.total / 2**20:.0f} | {row['tensors'] / 2**20:.0f} | {row['tensors'] / wanted.total:.2f} "
            f"| {row['peak'] / 2**20:.0f} | {row['seconds']:.2f} | {row['date']} |"
        )
    return f"""
## Memory

MiB of each rank for a CLIP of {size.trainable / 1e6:.1f} million parameters, joint batch {JOINT_BATCH}, AdamW, two gloo processes on a CPU.
Arithmetic: parameters + gradients + optimizer (`alignlab.cost.memory.training_memory`). Tensors: all that exist after a step, counted in the
process. Peak: growth of the process's resident size, activations and communication included. Seconds a step: 2 CPU cores (AMD EPYC), all
ranks on the same two. Made by `python benchmarks/strategies.py`; torch {torch.__version__}.

DDP and FSDP2 keep what the arithmetic says. ZeRO-1 and 2 free the gradients after a step, so less is there when it is counted; ZeRO-3 keeps a buffer of
`bucket_elements` numbers, and with offload one for gradients on the host besides, which here is the same memory. ZeRO's peaks hold the gathered
parameters and buffers of a step: on a CPU, and for a model of this size, `trainer=fsdp` is what saves memory.

| strategy | precision | arithmetic | sum | tensors | of the sum | peak | seconds a step | date |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(lines)}
"""


def rollout_section(rows: dict[str, dict], size: Counts) -> str:
    """The table of PPO: weights, optimizer states and a frozen reference lie there always, whole or in parts."""
    weights, lines = 4 * size.trainable, []
    for name, row in rows.items():
        case, _, precision = name.removesuffix(PPO_ROW).partition(" | ")
        strategy, ranks, _ = CASES[case]
        kept = training_memory(size, strategy, ranks, precision)
        reference = weights / (ranks if strategy in ("fsdp", "deepspeed_3") else 1)
        parts = f"{kept.parameters / 2**20:.0f} + {kept.optimizer / 2**20:.0f} + {reference / 2**20:.0f}"
        total = (kept.parameters + kept.optimizer + reference) / 2**20
        lines.append(
            f"| {case} | {parts} | {total:.0f} | {row['tensors'] / 2**20:.0f} | {row['peak'] / 2**20:.0f} | {row['seconds']:.1f} | {row['date']} |"
        )
    return f"""
MiB of each rank for PPO of a Llama of {size.trainable / 1e6:.1f} million parameters (W = {weights / 2**20:.0f} MiB) with a frozen reference, joint batch
{JOINT_BATCH} prompts, responses of at most 16 tokens, two gloo processes on a CPU. Arithmetic: parameters + optimizer + reference, all that is to lie there
between updates. Tensors: what does. Peak: growth of the process's resident size.
Made by `python benchmarks/strategies.py --ppo`; torch {torch.__version__}.

| strategy | arithmetic | sum | tensors | peak | seconds an update | date |
|---|---|---|---|---|---|---|
{chr(10).join(lines)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed", "bf16-true"), default="32-true")
    parser.add_argument("--dry-run", action="store_true", help="print without writing")
    parser.add_argument("--ppo", action="store_true", help="PPO instead of CLIP")
    device_option(parser)
    arguments = parser.parse_args()
    check_device(arguments.device)
    arguments.dry_run |= arguments.device == "cuda"  # the page's table is of two processes on a CPU
    rows = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    for case in arguments.only:
        group = CASES[case][2][0].removeprefix("trainer=")
        if not (ROOT / "conf" / "trainer" / f"{group}.yaml").exists():
            print(f"{case}: there is no conf/trainer/{group}.yaml")
            continue
        words, kind = (PPO, PPO_ROW) if arguments.ppo else (MODEL, "")
        row = {**run(case, arguments.precision, arguments.device, words), "date": time.strftime("%Y-%m-%d")}
        rows[f"{case} | {arguments.precision}{kind}"] = row
        print(case, row, flush=True)
        if not arguments.dry_run:  # row by row, so that what was measured stays
            TABLE.write_text(json.dumps({name: rows[name] for name in sorted(rows, key=order)}, indent=1) + "\n")
    if not arguments.dry_run and rows:
        ordered = {name: rows[name] for name in sorted(rows, key=order) if name.endswith(PPO_ROW) == arguments.ppo}
        if arguments.ppo:
            write_section("rollout-memory", rollout_section(ordered, model_counts(PPO)), PAGE)
        else:
            write_section("memory", section(ordered, model_counts(MODEL)), PAGE)


def order(name: str) -> tuple[int, str]:
    """Of a row: that of the cases, then by precision."""
    case, _, precision = name.partition(" | ")
    return list(CASES).index(case), precision


if __name__ == "__main__":
    main()
