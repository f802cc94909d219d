"""What each process does in `test_strategies.py`: the same few steps under one strategy after another."""

import csv
import logging
import os
import sys
import warnings
from pathlib import Path

from alignlab.configs.command_line import arguments
from alignlab.runs import train as run

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 20
MORE = 26  # steps after going on from another strategy's checkpoint
PAIRS = 8  # of the joint batch
SMALL = (
    "callbacks=default",
    "callbacks.progress=null",
    "callbacks.curves=null",
    "+trainer.enable_progress_bar=false",
    "optim.warmup_steps=5",
    "optim.lr=1e-3",
    "optim.schedule=constant",
    "trainer.gradient_clip_val=1.0",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=10",
)
SCENES = ("data=emoji_scenes", "data.num_train=400", "data.num_val=8", "data.num_workers=0", "+data.pad_to_multiple=20")
REVIEWS = ("+data.vocab_size=300", "data.max_length=40", "+trainer.limit_val_batches=2")
LLAMA = ("model.net.width=32", "model.net.depth=2", "model.net.heads=2", "model.net.dropout=0")
LANGUAGE = ("model/net=llama_tiny", *LLAMA, *REVIEWS)
ENCODER = (
    "model.net.encoder.vision.width=32",
    "model.net.encoder.vision.depth=2",
    "model.net.encoder.text_width=32",
    "model.net.encoder.text_layers=1",
    "model.net.encoder.fusion_layers=2",
    "model.net.encoder.embed_dim=16",
)
TOWER = ("model.net.vision.width=32", "model.net.vision.depth=2")
MODELS = {
    "clip": ("model=clip", *SCENES, *TOWER, "model.net.text.width=32", "model.net.text.depth=2"),
    "siglip": ("model=siglip", *SCENES, *TOWER, "model.net.text.width=32", "model.net.text.depth=2"),
    "sft": ("model=sft", *LANGUAGE),
    "reward": ("model=reward", *LANGUAGE, "model.pool=last"),
    "dpo": ("model=dpo", *LANGUAGE),
    "dpo_full": ("model=dpo", *LANGUAGE, "model/peft=none"),
    "albef": (
        "model=albef",
        *SCENES,
        *ENCODER,
        "model.queue_size=20",
        "model.momentum=0.9",
        "model.alpha=0.4",
        "model.alpha_ramp_steps=0",
        "model.teach_from_step=2",
        "data.near_misses=0.5",
        "data.sentences=2",
        "data.foils=1",
        "model.fuse_from_step=3",
        f"model.negative_pool={PAIRS // 2}",
    ),
}
MODELS |= {
    f"albef_{task}": (f"model=albef_{task}", f"data=emoji_scenes_{task}", *SCENES[1:], *ENCODER, "model.momentum=0.9")
    for task in ("entailment", "vqa", "nlvr2")
}
MODELS |= {
    f"clip_{task}": (f"model=clip_{task}", f"data=emoji_scenes_{task}", *SCENES[1:], *MODELS["clip"][6:])
    for task in ("entailment", "vqa")
}
MODELS["albef_muon"] = (*MODELS["albef"], "optim=muon")
STRATEGIES = {
    "ddp": ("trainer=ddp",),
    "fsdp": ("trainer=fsdp",),
    "fsdp_sharded": ("trainer=fsdp", "trainer.strategy.checkpoint=sharded"),
    "fsdp_offloaded": ("trainer=fsdp", "trainer.strategy.cpu_offload=true"),
    "deepspeed_1": ("trainer=deepspeed", "trainer.strategy.stage=1"),
    "deepspeed_2": ("trainer=deepspeed", "trainer.strategy.stage=2"),
    "deepspeed_3": ("trainer=deepspeed", "trainer.strategy.stage=3", "+trainer.strategy.persist_below=64"),
    "deepspeed_2_offloaded": (
        "trainer=deepspeed",
        "trainer.strategy.stage=2",
        "trainer.strategy.offload_optimizer=true",
    ),
    "deepspeed_3_offloaded": (
        "trainer=deepspeed",
        "trainer.strategy.stage=3",
        "+trainer.strategy.persist_below=64",
        "trainer.strategy.offload_optimizer=true",
        "trainer.strategy.offload_parameters=true",
    ),
    "deepspeed_3_sharded": (
        "trainer=deepspeed",
        "trainer.strategy.stage=3",
        "trainer.strategy.checkpoint=sharded",
    ),
    "deepspeed_3_persistent": ("trainer=deepspeed", "trainer.strategy.stage=3"),
}


def composed(*overrides: str) -> DictConfig:
    """A config as train.py gets it."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return compose("train", overrides=arguments([*overrides, "run_name=strategies"]))


def fit(
    folder: Path, *overrides: str, steps: int = STEPS, ckpt_path: Path | None = None, processes: int = 1
) -> list[dict[str, str]]:
    """Trains in this process and returns the rows of metrics.csv."""
    optim = () if any(override.startswith("optim=") for override in overrides) else ("optim=adamw",)
    cfg = composed(*optim, *SMALL, *overrides, f"trainer.max_steps={steps}", f"data.batch_size={PAIRS // processes}")
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    datamodule, system = run.build(cfg)
    trainer = run.build_trainer(cfg, folder)
    trainer.fit(system, datamodule=datamodule, ckpt_path=ckpt_path)
    if trainer.is_global_zero:
        trainer.loggers[0].finalize("ok")
    return rows_of(folder)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """What was logged, a row a step."""
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def quiet() -> None:
    """One thread, no warnings, as little output as possible."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main(folder: Path, models: list[str], strategies: list[str]) -> None:
    """Trains under each strategy, then goes on from its checkpoint under the next one.

    Runs as torchrun would start it: the place among the processes is in the environment.
    """
    quiet()
    for model in models:
        for strategy in strategies:
            fit(folder / model / strategy, *MODELS[model], *STRATEGIES[strategy], processes=2)
            print(os.environ["RANK"], model, strategy, "done", flush=True)
        for before, after in zip(strategies, strategies[1:] + strategies[:1], strict=True):
            checkpoint = folder / model / before / "checkpoints" / "last.ckpt"
            target = folder / model / f"{before}+{after}"
            fit(target, *MODELS[model], *STRATEGIES[after], steps=MORE, ckpt_path=checkpoint, processes=2)
            print(os.environ["RANK"], model, target.name, "done", flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split(","))
