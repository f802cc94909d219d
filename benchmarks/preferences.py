"""SFT and reward training side by side with trl 1.12.0: texts per second, written to docs/benchmarks.md.

    python benchmarks/preferences.py [--rounds 5] [--batches 6] [--device cuda] [--dry-run]

Both sides train equal Llamas on the built-in reviews in one process, turn by turn. A turn is `--batches` whole steps: batch, forward,
loss, backward, clipping, AdamW. trl's steps are its trainer's own `training_step` on batches of its own collator in its random order; ours
are those of the systems, on the data modules' batches (texts of like length together). Rates are medians over turns. Needs the `parity` extra.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from itertools import cycle

from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.movies import MoviePreferences, MovieReviews
from alignlab.losses.language_modelling import next_token_loss
from alignlab.losses.preference import bradley_terry
from alignlab.methods.sft import SftMethod
from alignlab.models.language.new import llama
from alignlab.models.language.reward import RewardModel
from alignlab.optim.adamw import adamw

import torch
from lightning.fabric.utilities import move_data_to_device
from measuring import check_device, device_option, hardware, section_name, wait, write_section
from torch import nn

ROWS = 32  # texts of an SFT batch, pairs of a reward batch
Turn = Callable[[int], None]


def net_for(vocabulary: object) -> nn.Module:
    """7 M parameters, the same on both sides."""
    torch.manual_seed(0)
    return llama(width=256, depth=6, heads=4, context_length=256, vocabulary=vocabulary)


def stepper(module: nn.Module, loss_of: Callable, batches: Iterator, device: str) -> Turn:
    """Our step on the next batches."""
    module.to(device)
    optimizer = adamw(module, lr=1e-4, total_steps=10_000, schedule="linear")["optimizer"]
    trained = [p for p in module.parameters() if p.requires_grad]

    def turn(count: int) -> None:
        for _ in range(count):
            loss_of(move_data_to_device(next(batches), device)).backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return turn


def our_sft(device: str) -> Turn:
    data = LanguageDataModule(MovieReviews, batch_size=ROWS)
    data.setup()
    method = SftMethod(net_for, vocabulary=data.vocabulary)
    return stepper(
        method.net, lambda batch: next_token_loss(method.log_probs(batch)), cycle(data.train_dataloader()), device
    )


def our_reward(device: str) -> Turn:
    data = LanguageDataModule(MoviePreferences, batch_size=ROWS)
    data.setup()
    model = RewardModel(net_for(data.vocabulary))

    def loss_of(batch) -> torch.Tensor:
        rewards = model(batch.ids, batch.mask)
        return bradley_terry(rewards[batch.first], rewards[batch.second], batch.share)

    return stepper(model, loss_of, cycle(data.train_dataloader()), device)


def trl_turn(kind: str, device: str) -> Turn:
    """trl's trainer, stepped by hand as its loop does it."""
    import datasets
    import trl
    from transformers import LlamaForSequenceClassification

    data = LanguageDataModule(MovieReviews if kind == "SFT" else MoviePreferences)
    data.setup()
    texts = data.tokenizer.batch_decode(
        [data.rows["train"].store.ids(i) for i in range(4000)], skip_special_tokens=True
    )
    net = net_for(data.vocabulary)
    settings = {
        "output_dir": tempfile.mkdtemp(), "use_cpu": device == "cpu", "report_to": [], "per_device_train_batch_size": ROWS, "bf16": False, "max_length": 128,
        "gradient_checkpointing": False, "learning_rate": 1e-4, "disable_tqdm": True, "max_grad_norm": 1.0,
    }  # fmt: skip
    if kind == "SFT":
        rows = datasets.Dataset.from_list([{"text": text} for text in texts])
        trainer = trl.SFTTrainer(
            net, args=trl.SFTConfig(**settings), train_dataset=rows, processing_class=data.tokenizer
        )
    else:
        judge = LlamaForSequenceClassification(net.config)
        judge.config.num_labels = 1
        judge.score = nn.Linear(256, 1, bias=False)
        pairs = [{"chosen": a, "rejected": b} for a, b in zip(texts[::2], texts[1::2], strict=True)]
        rows = datasets.Dataset.from_list(pairs)
        trainer = trl.RewardTrainer(
            judge, args=trl.RewardConfig(**settings), train_dataset=rows, processing_class=data.tokenizer
        )
    batches = cycle(trainer.get_train_dataloader())
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1  # its loop sets it
    model = trainer.model_wrapped

    def turn(count: int) -> None:
        for _ in range(count):
            model.train()
            trainer.training_step(model, next(batches))
            trainer.accelerator.clip_grad_norm_(model.parameters(), 1.0)
            trainer.optimizer.step()
            model.zero_grad()

    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measured turns of each side")
    parser.add_argument("--batches", type=int, default=6, help="steps of a turn")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the table without writing it to docs/benchmarks.md"
    )
    device_option(parser)
    arguments = parser.parse_args()
    check_device(arguments.device)
    lines = ["| training | side | texts/s | speed ratio |", "|---|---|---|---|"]
    for kind, ours, texts in (("SFT", our_sft, ROWS), ("reward", our_reward, 2 * ROWS)):
        sides = {"trl 1.12.0": trl_turn(kind, arguments.device), "alignlab": ours(arguments.device)}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(arguments.rounds + 1):
            for name in sides if turn % 2 else reversed(sides):
                wait(arguments.device)
                start = time.perf_counter()
                sides[name](arguments.batches)
                wait(arguments.device)
                if turn:  # the first one allocates
                    seconds[name].append(time.perf_counter() - start)
        rates = {name: texts * arguments.batches / statistics.median(times) for name, times in seconds.items()}
        lines += [
            f"| {kind} | {name} | {rate:.1f} | {rate / rates['trl 1.12.0']:.2f} |" for name, rate in rates.items()
        ]
        print("\n".join(lines[-2:]), flush=True)
    if not arguments.dry_run:
        write_section(
            section_name("preferences", arguments.device),
            section(lines, arguments.rounds, arguments.batches, arguments.device),
        )


def section(lines: list[str], rounds: int, batches: int, device: str) -> str:
    """This benchmark's part of the page."""
    table = "\n".join(lines)
    return f"""
## SFT and reward model against TRL

Whole training steps on the built-in reviews, a Llama of 7 M parameters, float32, {ROWS} texts or pairs a batch, as their trainers and our data
modules make them: ours put texts of like length together and never hold a batch's logits. Medians of {rounds} turns of {batches} steps, alternating
in one process. torch {torch.__version__}, {hardware(device)}, {date.today()}. Made by
`python benchmarks/preferences.py`.

{table}
"""


if __name__ == "__main__":
    main()
