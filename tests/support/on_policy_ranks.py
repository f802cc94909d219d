"""What each process does in `test_on_policy.py`: the same updates of PPO and GRPO under one strategy after another."""

import os
import sys
from pathlib import Path

import strategy_ranks as ranks
from alignlab.data.language import movies
from alignlab.data.language.rated_reviews import RatedTexts, rated_reviews
from alignlab.runs import train as run

import lightning
import torch

PROMPTS = 8  # of the joint batch
SMALL = (
    *("model/net=llama_tiny", *ranks.LLAMA, "+data.vocab_size=300", "data.max_length=16", "model.response_length=6"),
    f"model.stop_ids={[*range(30, 80)]}",  # responses of unequal lengths
    *("model.reward=tiny_policy.count_letters", "model.update.micro_batch_size=3", "model.update.max_grad_norm=0.3"),
    *("callbacks=[rlhf,best_of_n]", "callbacks.progress=null", "callbacks.curves=null", "callbacks.introduction=null"),
    *("callbacks.responses.num_prompts=2", "callbacks.best_of_n.num_samples=2", "callbacks.export=null"),
    *("trainer.log_every_n_steps=1", "+trainer.limit_val_batches=1", "trainer.num_sanity_val_steps=0"),
    *("trainer.val_check_interval=5", "+trainer.enable_progress_bar=false", "optim.schedule=constant", "optim.lr=1e-3"),
)
PPO = ("model=ppo", "model.update.epochs=2", "model.update.critic_lr_ratio=2", "model.kl.target=0.01")
GRPO = ("model=grpo", "model.group_size=2", "model.update.epochs=2")
LORA = ("model.peft.rank=2",)
WHOLE = ("model/peft=none",)
MODELS = {
    "ppo": (
        *PPO,
        *WHOLE,
        "model.critic=separate",
        "model.objective.entropy_coefficient=0.01",
        "model.update.target_kl=0.001",
    ),
    "ppo_lora": (*PPO, *LORA),
    "grpo": (*GRPO, *WHOLE),
    "grpo_lora": (*GRPO, *LORA),
    "gkd": ("model=gkd", "model/net@model.teacher=llama_tiny", "model.objective.beta=0.5", *WHOLE),
}


class Listener(lightning.Callback):
    """Keeps the responses of every update."""

    def __init__(self) -> None:
        self.said: list[list[list[int]]] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        respond = pl_module.method.respond

        def heard(batch, number, **settings):
            responses = respond(batch, number, **settings)
            self.said += [] if settings else [responses.responses]
            return responses

        pl_module.method.respond = heard


def fit(folder: Path, model: str, *overrides: str, steps: int, ckpt_path: Path | None = None) -> None:
    """Trains, and leaves metrics.csv, the last checkpoint and this rank's responses."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    words = (
        *MODELS[model],
        *SMALL,
        *overrides,
        f"trainer.max_steps={steps}",
        f"data.batch_size={PROMPTS // processes}",
    )
    cfg = ranks.composed(*words)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    datamodule, system = run.build(cfg)
    trainer, listener = run.build_trainer(cfg, folder), Listener()
    trainer.callbacks.append(listener)
    trainer.fit(system, datamodule=datamodule, ckpt_path=ckpt_path)
    if trainer.is_global_zero:
        trainer.loggers[0].finalize("ok")
    torch.save(listener.said, folder / f"said{trainer.global_rank}.pt")


def few_reviews() -> None:
    """A fiftieth of the built-in texts."""
    few = RatedTexts(rated_reviews().texts[::50], rated_reviews().shares[::50])
    movies.rated_reviews = lambda name="movie_reviews": few


def main(folder: Path, cases: list[str], updates: int) -> None:
    """For each case, model:strategy, all updates, then all but two and these two from its checkpoint; with a ! behind it
    without the first of these; for model:strategy+other the last two under the other.
    """
    ranks.quiet()
    few_reviews()
    for case in cases:
        model, name = case.split(":")
        first, _, other = name.removesuffix("!").partition("+")
        half = folder / model / f"{first}_half"
        if name == first:
            fit(folder / model / name, model, *ranks.STRATEGIES[name], steps=updates)
        if not other:
            fit(half, model, *ranks.STRATEGIES[first], steps=updates - 2)
        checkpoint = half / "checkpoints" / "last.ckpt"
        target = folder / model / (name if other else f"{first}_resumed")
        fit(target, model, *ranks.STRATEGIES[other or first], steps=updates, ckpt_path=checkpoint)
        print(os.environ["RANK"], case, "done", flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]))
