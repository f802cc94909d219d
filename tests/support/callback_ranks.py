"""What each of two processes does in `test_callbacks.py`: a run of two steps under fsdp for every callback of conf/callbacks, alone."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

import strategy_ranks as ranks
from alignlab.runs import train as run

import torch
from omegaconf import OmegaConf


class Alone(NamedTuple):
    """A callback without the others: the model that it is for, what it needs besides, and what it leaves on rank zero."""

    model: str
    file: str | None = None  # in the run directory
    metric: str | None = None
    beside: tuple[str, ...] = ()
    group: str = ""  # of conf/callbacks, where it isn't the callback's own name


CALLBACKS = {
    "progress": Alone("clip", group="default"),
    "introduction": Alone("clip", group="default"),
    "checkpoint": Alone("clip", "checkpoints/last.ckpt", group="default"),
    "throughput": Alone("clip", group="default"),
    "final_validation": Alone("clip", metric="val/loss", group="default"),
    "learning_rate": Alone("clip", metric="lr", group="default"),
    "curves": Alone("clip", "samples/curves.png", group="default"),
    "nan_report": Alone("clip", group="default"),
    "data_wait": Alone("clip", group="default"),
    "flops": Alone("clip", metric="train/gflops_per_sample", beside=("throughput",)),
    "gradients": Alone("clip", metric="train/gradient_norm"),
    "memory": Alone("clip", metric="memory/tensor_bytes"),
    "spike_guard": Alone("clip"),
    "linear_probe": Alone("clip", metric="val/linear_probe_accuracy"),
    "zero_shot": Alone("clip", metric="val/zero_shot_variants_accuracy_at_1"),
    "retrieval": Alone("albef", metric="val/text_to_image_recall_at_1"),
    "foils": Alone("albef", metric="val/relations_text_score"),
    "arrangements": Alone("albef", metric="val/arrangements_text_to_image_recall_at_1"),
    "stuck_loss": Alone("clip"),
    "grounding": Alone("albef", metric="val/pointing_game_accuracy"),
    "samples": Alone("albef", "samples/grad_cam.png"),
    "export": Alone("sft", "export/model.safetensors", group="language"),
    "answers": Alone("sft", "samples/answers.jsonl"),
    "rating_ranking": Alone("reward", metric="val/all_pairs_accuracy", group="reward"),
    "responses": Alone("grpo", "samples/responses.html", group="rlhf"),
    "rollouts": Alone("grpo", "rollouts/00000001-1.jsonl"),
    "items": Alone("lm", "items.jsonl", "val/exact_match"),
    "best_of_n": Alone("grpo", "samples/best_of_n.jsonl"),
}
MODELS = ranks.MODELS | {
    "lm": ("model=lm", "data=decimal_addition", "model.net.width=32", "model.net.depth=1", "model.net.heads=2"),
    "grpo": (
        *("model=grpo", "model/peft=none", "model.group_size=2", "model.response_length=6", "model/net=llama_tiny"),
        *("model.reward=tiny_policy.count_letters", *ranks.LLAMA, "+data.vocab_size=300", "data.max_length=16"),
        *("+trainer.limit_val_batches=1", "trainer.gradient_clip_val=null"),
    ),
}
SHORT = (
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "trainer.num_sanity_val_steps=0",
    "trainer.log_every_n_steps=1",
)


def fit(folder: Path, name: str) -> None:
    """Trains two steps under fsdp with one callback."""
    alone = CALLBACKS[name]
    small = [o for o in ranks.SMALL if not o.startswith(("callbacks", "trainer.val_check", "trainer.log_every"))]
    group = f"callbacks=[default,{alone.group or name}]" if alone.group != "default" else "callbacks=default"
    extra = ["callbacks.memory.at_step=2"] if name == "memory" else []
    cfg = ranks.composed(
        "optim=adamw", *small, group, *MODELS[alone.model], "trainer=fsdp", "data.batch_size=4", *SHORT, *extra
    )
    kept = {key: cfg.callbacks[key] for key in (*alone.beside, name)}
    cfg.callbacks = OmegaConf.create(kept)
    cfg.trainer.enable_progress_bar = name == "progress"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    datamodule, system = run.build(cfg)
    trainer = run.build_trainer(cfg, folder)
    trainer.fit(system, datamodule=datamodule)
    assert trainer.global_step == 2
    if trainer.is_global_zero:
        trainer.loggers[0].finalize("ok")
        assert alone.file is None or (folder / alone.file).exists(), alone.file
        assert alone.metric is None or alone.metric in trainer.callback_metrics, sorted(trainer.callback_metrics)


def main(folder: Path, names: list[str]) -> None:
    """One callback after another; what fails on a rank is said and ends the process."""
    ranks.quiet()
    for name in names:
        print(os.environ["RANK"], name, flush=True)
        fit(folder / name, name)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","))
