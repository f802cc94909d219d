"""Peak memory that `alignlab plan` predicts against what training takes, written to docs/plan.md.

    python benchmarks/plan.py [--only "PPO, LoRA"] [--device cuda] [--dry-run]

SmolLM2-135M (extra `smollm2`), the systems as `train.py` builds them, batches of random tokens of one length. Every row is a process of its own: it
notes its resident size before the net is built, takes one step, forgets the peak so far (that of reading the weights) and takes another. Needs Linux.
LoRA needs the extra `rlhf`, the 4-bit base `quantization`.
"""

import argparse
import contextlib
import os
from dataclasses import replace
from datetime import date
from pathlib import Path

from alignlab.configs.command_line import arguments
from alignlab.cost.model_sizes import sizes
from alignlab.cost.plan import Plan, Training, plan
from alignlab.runs import train as run
from alignlab.types.language import PreferenceBatch, PromptBatch, TokenBatch

import lightning
import torch
from hydra import compose, initialize_config_dir
from measuring import (
    PAGE,
    bare_trainer,
    check_device,
    device_option,
    hardware,
    number_from_process,
    resident_bytes,
    section_name,
    smollm2,
    write_section,
)
from torch.utils.data import DataLoader

PROMPT, RESPONSE, ROWS, ROLLOUT = 64, 64, 8, 16
LENGTH = PROMPT + RESPONSE
JOB = Training(batch_size=ROWS, prompt=PROMPT, response=RESPONSE, dtype="float32", gpu=False)
LORA = ("model/peft=lora",)
CASES: dict[str, tuple[Training, tuple[str, ...]]] = {
    "SFT, all weights": (replace(JOB, stage="sft", lora_rank=None), ("model/peft=none",)),
    "SFT, LoRA": (replace(JOB, stage="sft"), LORA),
    "SFT, LoRA, checkpointing": (
        replace(JOB, stage="sft", gradient_checkpointing=True),
        (*LORA, "model.net.gradient_checkpointing=true"),
    ),
    "SFT, LoRA, bfloat16": (replace(JOB, stage="sft", dtype="bfloat16"), (*LORA, "model.net.dtype=bfloat16")),
    "SFT, LoRA, int8 base": (
        replace(JOB, stage="sft", quantization="int8"),
        (*LORA, "model.net.quantization=int8"),
    ),
    "DPO, LoRA": (replace(JOB, stage="dpo"), LORA),
    "PPO, LoRA": (replace(JOB, stage="ppo", rollout_batch=ROLLOUT), LORA),
    "PPO, all weights": (replace(JOB, stage="ppo", rollout_batch=ROLLOUT, lora_rank=None), ("model/peft=none",)),
    "PPO, LoRA, int8 base": (
        replace(JOB, stage="ppo", rollout_batch=ROLLOUT, quantization="int8"),
        (*LORA, "model.net.quantization=int8"),
    ),
    "PPO, LoRA, nf4 base": (
        replace(JOB, stage="ppo", rollout_batch=ROLLOUT, quantization="nf4"),
        (*LORA, "model.net.quantization=nf4"),
    ),
}


def no_reward(prompts: list[str], responses: list[str]) -> list[float]:
    """Takes no memory of its own."""
    return [0.0] * len(responses)


def batch_of(stage: str) -> TokenBatch | PreferenceBatch | PromptBatch:
    """Random tokens without padding."""
    rows = {"sft": ROWS, "dpo": 2 * ROWS, "ppo": ROLLOUT}[stage]
    length = PROMPT if stage == "ppo" else LENGTH
    ids = torch.randint(10, 40_000, (rows, length), generator=torch.Generator().manual_seed(0))
    if stage == "ppo":
        return PromptBatch(ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(rows))
    answers = torch.arange(rows * length).view(rows, length)[:, PROMPT:].flatten()
    if stage == "sft":
        position = torch.arange(length).expand(rows, length)
        return TokenBatch(ids, torch.ones_like(ids), position, answers, False)
    first, second = torch.arange(rows).chunk(2)
    ones = torch.ones(ROWS)
    return PreferenceBatch(
        ids, torch.ones_like(ids, dtype=torch.bool), answers, first, second, ones, ones, torch.arange(rows)
    )


class Batches(lightning.LightningDataModule):
    """The same batch over and over."""

    def __init__(self, stage: str, tokenizer: object) -> None:
        super().__init__()
        self.stage, self.tokenizer = stage, tokenizer

    def train_dataloader(self) -> DataLoader:
        return DataLoader([batch_of(self.stage)] * 2, batch_size=None)


class SecondStep(lightning.Callback):
    """Forgets the highest resident size before the second step."""

    def on_train_batch_start(self, trainer: lightning.Trainer, system: object, batch: object, index: int) -> None:
        if index == 1:
            Path("/proc/self/clear_refs").write_text("5")
            if system.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()


def work(case: str, device: str) -> None:
    """The worker: prints the peak above the start."""
    job, overrides = CASES[case]
    model = [
        f"model={job.stage}",
        "model/net=language_pretrained",
        f"model.net.path={smollm2()}",
        f"trainer={'cpu' if device == 'cpu' else 'gpu'}",
        *overrides,
    ]
    if job.stage == "ppo":
        model += [
            "model.reward=plan.no_reward",
            f"model.response_length={RESPONSE}",
            f"model.update.micro_batch_size={ROWS}",
            "model.update.epochs=1",
            "model.missing_end_penalty=null",
        ]
    model += [f"data.batch_size={ROLLOUT if job.stage == 'ppo' else ROWS}"]
    with initialize_config_dir(str(PAGE.parent.parent / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=arguments(model))
    datamodule, system = run.build(cfg)
    if job.stage == "ppo":
        system.sampling = system.sampling._replace(ignore_eos=True)
    (torch.randn(512, 512) @ torch.randn(512, 512)).sum()
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    if job.quantization:
        with contextlib.suppress(ImportError):
            import bitsandbytes  # noqa: F401
    trainer = bare_trainer(2, SecondStep(), device)
    before = resident_bytes()
    trainer.fit(system, datamodule=Batches(job.stage, datamodule.tokenizer))
    print(torch.cuda.max_memory_allocated() if device == "cuda" else resident_bytes("VmHWM") - before)


def line(case: str, expected: Plan, measured: int) -> str:
    """A row of the table."""
    phase, peak = expected.peak
    part, size = expected.dominant
    return f"| {case} | {peak / 2**20:.0f} | {phase} | {part} {size / 2**20:.0f} | {measured / 2**20:.0f} | {peak / measured:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="these rows, printed only")
    parser.add_argument("--dry-run", action="store_true", help="print the table without writing it to docs/plan.md")
    parser.add_argument("--work", choices=CASES, help=argparse.SUPPRESS)
    device_option(parser)
    arguments = parser.parse_args()
    check_device(arguments.device)
    if arguments.work:
        work(arguments.work, arguments.device)
        return
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of the workers
    model, lines = sizes(str(smollm2())), []
    for case in arguments.only:
        measured = number_from_process("--work", case, "--device", arguments.device)
        # torch's count has no context of CUDA in it, which the plan of a GPU has
        lines.append(line(case, plan(model, CASES[case][0]), measured))
        print(lines[-1], flush=True)
    if not arguments.dry_run and arguments.only == list(CASES):  # the page has the whole table
        write_section(
            section_name("measured", arguments.device), section(lines, arguments.device), PAGE.with_name("plan.md")
        )


def section(lines: list[str], device: str) -> str:
    """This benchmark's part of the page."""
    table = "\n".join(lines)
    return f"""
## Against what training takes

MiB at SmolLM2-135M: {PROMPT} tokens of prompt and {RESPONSE} of response, {ROWS} rows a pass ({ROWS} pairs of DPO), {ROLLOUT} of PPO generated at a
time, float32 but where said, LoRA of rank 16 on all linear layers. Measured: highest resident size of the second step above what the process held
before the net was built, with whatever the libraries allocate beside tensors; on a GPU what torch had allocated at most.
torch {torch.__version__}, {hardware(device)}, {date.today()}. Made by `python benchmarks/plan.py`.

| training | predicted | phase | largest part | measured | predicted / measured |
|---|---|---|---|---|---|
{table}
"""


if __name__ == "__main__":
    main()
